//go:build !unix || aix || solaris

package client

import (
	"errors"
	"os"
)

// lock would lock a file for as long as it is open.
func lock(*os.File) (bool, error) {
	return false, errors.New("journals need a system that locks files as Unix does: leave Options.Journal empty")
}
