package loadgen

import (
	"runtime"
	"syscall"
	"time"
)

// preciseSleep runs f with a function that sleeps to within some 50 µs. time.Sleep rounds up to whole milliseconds
// on Linux when nothing else wakes the process, which at 10,000 requests a second would turn an even schedule into
// bursts of ten.
func preciseSleep(f func(sleep func(time.Duration))) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack := prctl(prGetTimerSlack, 0)
	prctl(prSetTimerSlack, 1)
	defer prctl(prSetTimerSlack, slack)
	f(func(d time.Duration) {
		// A signal may end it early; the caller looks at the clock again anyway.
		wait := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&wait, nil)
	})
}

// By its timer slack, in nanoseconds, the kernel may delay the calling thread's sleep: 50 µs by default.
// See prctl(2), PR_SET_TIMERSLACK.
const (
	prSetTimerSlack = 29
	prGetTimerSlack = 30
)

// prctl ignores errors: where the slack cannot be changed, it shows in the reported lateness, and nothing else is lost.
func prctl(option, value uintptr) uintptr {
	result, _, _ := syscall.Syscall(syscall.SYS_PRCTL, option, value, 0)
	return result
}
