package redistest

import (
	"slices"
	"sync/atomic"
	"time"
)

// Fault is what a [Proxy] does to one command and its answer. The zero value lets both pass.
type Fault struct {
	Do Action
	// Reset makes a cut one by RST, which the client meets as an error at once and with nothing read,
	// where a plain one ends the stream.
	Reset bool
	// Delay holds the command back, and with it all that follow on its connection. It goes on its way
	// after that even if the client has left.
	Delay time.Duration
	// Until, where there is one, holds the command back likewise until it is closed.
	Until <-chan struct{}
	// AnswerDelay holds back the answer.
	AnswerDelay time.Duration
}

// Action is where a command ends.
type Action uint8

const (
	// Pass is for no fault at all.
	Pass Action = iota
	// CutBefore ends the connection; Redis has not seen the command.
	CutBefore
	// CutAfter ends the connection when Redis has run the command and answered; nobody gets the answer.
	CutAfter
	// CutWithin is CutAfter with half of the answer.
	CutWithin
	// SwallowCommand: the connection stays open, and what the client sends on it leads nowhere.
	SwallowCommand
	// SwallowAnswer: the connection stays open, Redis runs what the client sends, and no answer comes.
	SwallowAnswer
)

// Rule says what happens to the next command, by its name in capitals. It is called for one command
// at a time.
type Rule func(name string) Fault

// All makes a fault of every command of these names; of every command at all if there are none.
func All(fault Fault, names ...string) Rule { return Every(1, fault, names...) }

// Every makes a fault of every nth command of these names, over all connections.
func Every(n int64, fault Fault, names ...string) Rule {
	return when(func(count int64) bool { return count%n == 0 }, fault, names)
}

// Nth makes a fault of the nth command of these names, and of no other.
func Nth(n int64, fault Fault, names ...string) Rule {
	return when(func(count int64) bool { return count == n }, fault, names)
}

func when(chosen func(count int64) bool, fault Fault, names []string) Rule {
	var count atomic.Int64
	return func(name string) Fault {
		if len(names) > 0 && !slices.Contains(names, name) || !chosen(count.Add(1)) {
			return Fault{}
		}
		return fault
	}
}
