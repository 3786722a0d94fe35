package engine

import (
	"sync/atomic"
	"time"
)

// rarely allows something once a minute at most: to log what every request may bring about.
type rarely struct{ last atomic.Int64 }

func (r *rarely) allows(now time.Time) bool {
	last := r.last.Load()
	return (last == 0 || now.UnixNano()-last >= int64(time.Minute)) && r.last.CompareAndSwap(last, now.UnixNano())
}
