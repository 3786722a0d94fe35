package limit

import "time"

// Micros is an instant (microseconds since the Unix epoch) or a span of time (microseconds).
// Values are below 2^53, so that they are exact as Lua numbers too: enough until the year 2255.
type Micros int64

// Second is one second in [Micros].
const Second Micros = 1_000_000

// MaxAmount is the largest amount, limit or count that ration works with: 2^53 − 1, the largest
// integer below which every integer is exact as a double (Lua's only number type).
const MaxAmount int64 = 1<<53 - 1

// At returns the instant t in [Micros].
func At(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time returns the instant m as a [time.Time] in UTC.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// Duration returns the span m as a [time.Duration]. Spans of more than 292 years saturate.
func (m Micros) Duration() time.Duration {
	const most = Micros(1<<63-1) / Micros(time.Microsecond)
	if m > most {
		return 1<<63 - 1
	}
	return time.Duration(m) * time.Microsecond
}

// Seconds returns the span m in whole seconds, rounded up: a caller who waits that long has waited
// long enough.
func (m Micros) Seconds() int64 { return int64((m + Second - 1) / Second) }

// Milliseconds returns the span m in whole milliseconds, rounded up.
func (m Micros) Milliseconds() int64 { return int64((m + 999) / 1000) }

// Add returns a + b, pinned at [MaxAmount] instead of growing beyond it. Both are in 0…MaxAmount.
func Add(a, b int64) int64 {
	if b > MaxAmount-a {
		return MaxAmount
	}
	return a + b
}

// Less returns a − b, never below 0. Both are in 0…MaxAmount.
func Less(a, b int64) int64 { return max(0, a-b) }
