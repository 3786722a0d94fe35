//go:build !linux

package loadgen

import "time"

// preciseSleep runs f with time.Sleep.
func preciseSleep(f func(sleep func(time.Duration))) { f(time.Sleep) }
