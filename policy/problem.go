package policy

import (
	"strconv"
	"strings"
)

// Problem is one thing that is wrong, or looks wrong, in a policy.
type Problem struct {
	File         string // as it was given or found
	Line, Column int    // from 1; 0 where the place is not known
	Message      string
	Suggestion   string // what was probably meant, or empty
	Warning      bool   // the policy loads in spite of it
}

// String returns "file:line:column: message (did you mean `x`?)", without the parts that are not
// known.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		for _, n := range []int{p.Line, p.Column} {
			if n == 0 {
				break
			}
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Suggestion != "" {
		b.WriteString(" (did you mean `" + p.Suggestion + "`?)")
	}
	return b.String()
}

// Errors is the error of [Load] and [Parse]: everything that keeps a policy from being used. It
// holds at least one Problem, in the order of files and lines.
type Errors struct {
	Problems []Problem
}

// Error returns the problems, one a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
