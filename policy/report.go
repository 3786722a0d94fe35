package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds how many problems one load reports.
const maxProblems = 1000

// place is a place in a policy file. Line and column count from 1, and are 0 where unknown.
type place struct {
	file         string
	line, column int
}

func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// report collects the problems of one load.
type report struct {
	strict   bool // warnings are errors
	errors   int  // how many there were, also those that are not shown
	problems []Problem
	seen     map[Problem]bool // what two aliases lead to is reported once
	omitted  int
}

func newReport(opts Options) *report {
	return &report{strict: opts.Strict, seen: map[Problem]bool{}}
}

// error reports what keeps the policy from being used.
func (r *report) error(at place, format string, args ...any) {
	r.add(at, Problem{Message: fmt.Sprintf(format, args...)})
}

// warn reports what is probably not meant.
func (r *report) warn(at place, format string, args ...any) {
	r.add(at, Problem{Message: fmt.Sprintf(format, args...), Warning: !r.strict})
}

func (r *report) add(at place, p Problem) {
	p.File, p.Line, p.Column = at.file, at.line, at.column
	if !p.Warning {
		r.errors++
	}
	switch {
	case r.seen[p]:
	case r.full():
		r.omitted++
	default:
		r.seen[p] = true
		r.problems = append(r.problems, p)
	}
}

// failed reports whether there are errors.
func (r *report) failed() bool { return r.errors > 0 }

func (r *report) full() bool { return len(r.problems) == maxProblems }

// result returns the warnings and, as *Errors, the errors, both in the order of files and lines.
func (r *report) result(sources []Source) ([]Problem, error) {
	order := make(map[string]int, len(sources))
	for i, s := range sources {
		order[s.Name] = i
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column))
	})
	if r.omitted > 0 {
		r.problems = append(r.problems, Problem{
			Message: fmt.Sprintf("%d more problems are not shown", r.omitted), Warning: !r.failed()})
	}
	var warnings, failures []Problem
	for _, p := range r.problems {
		if p.Warning {
			warnings = append(warnings, p)
		} else {
			failures = append(failures, p)
		}
	}
	if r.failed() {
		return warnings, &Errors{Problems: failures}
	}
	return warnings, nil
}

// clipAt is how many bytes of somebody's text a message quotes.
const clipAt = 100

// clip shortens text that goes into a message.
func clip(s string) string {
	if len(s) <= clipAt {
		return s
	}
	return strings.ToValidUTF8(s[:clipAt], "") + "…"
}
