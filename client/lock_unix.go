//go:build unix && !aix && !solaris

package client

import (
	"errors"
	"os"
	"syscall"
)

// lock locks a file for as long as it is open, and says whether that was possible and the file is still there by its name:
// who held it before may have removed it meanwhile.
func lock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.Name())
	return err == nil && os.SameFile(opened, named), nil
}
