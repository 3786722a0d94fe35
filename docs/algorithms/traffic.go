package main

import (
	"slices"

	"github.com/rationhq/ration/limit"
)

// outcome is what became of one request.
type outcome struct {
	at       limit.Micros
	admitted bool
	wait     limit.Micros // until it would be admitted, where it is refused
}

// sample is how full a limit is at an instant, in millionths of a unit: what the window before
// weighs, and all of it. held is the part that is reserved.
type sample struct {
	at                limit.Micros
	before, all, held int64
}

const unit = 1_000_000 // of a sample

func look(s *limit.Spec, st *limit.State, now limit.Micros) sample {
	out := sample{at: now, all: st.Count * unit, held: st.Held * unit}
	switch s.Algorithm {
	case limit.TokenBucket:
		out.all += st.Rest * unit / int64(s.Window)
	case limit.SlidingWindow:
		out.before = st.Rest * unit * int64(s.Window-(now-st.At)) / int64(s.Window)
		out.all += out.before
	default:
	}
	return out
}

// ask puts requests of one unit each, at instants in order, to a limit, and samples it all along
// until the end.
func ask(s *limit.Spec, requests []limit.Micros, begin, until, step limit.Micros) ([]outcome, []sample) {
	var outcomes []outcome
	var samples []sample
	var st limit.State
	edges := make([]limit.Micros, 0, 2*len(requests))
	for _, r := range requests { // where the level may step
		edges = append(edges, r-1, r+s.Window-1, r+s.Window)
		if s.Calendar != nil {
			_, next := s.Calendar.Bounds(r)
			edges = append(edges, next-1, next)
		} else if s.Window > 0 {
			next := r + s.Window - (r-begin)%s.Window
			edges = append(edges, next-1, next, next+s.Window-1, next+s.Window)
		}
	}
	for t := begin; t < until; t += step {
		edges = append(edges, t)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	see := func(now limit.Micros) {
		for len(edges) > 0 && edges[0] < now {
			if t := edges[0]; t >= begin && t < until {
				s.Advance(&st, t)
				samples = append(samples, look(s, &st, t))
			}
			edges = edges[1:]
		}
	}
	for _, now := range requests {
		see(now)
		s.Advance(&st, now)
		status := s.Judge(&st, now, 1, 0)
		if !status.Refused {
			s.Charge(&st, now, 1)
			samples = append(samples, look(s, &st, now))
		}
		outcomes = append(outcomes, outcome{now, !status.Refused, status.RetryAfter})
	}
	see(until)
	return outcomes, samples
}

// admitted returns how many were.
func admitted(outcomes []outcome) int {
	n := 0
	for _, o := range outcomes {
		if o.admitted {
			n++
		}
	}
	return n
}

// busiest returns the most that were admitted within any span of a length, its end not included,
// and when the first and the last of them were.
func busiest(outcomes []outcome, span limit.Micros) (most int, from, to limit.Micros) {
	var in []limit.Micros
	for _, o := range outcomes {
		if o.admitted {
			in = append(in, o.at)
		}
	}
	first := 0
	for last := range in {
		for in[last]-in[first] >= span {
			first++
		}
		if n := last - first + 1; n > most {
			most, from, to = n, in[first], in[last]
		}
	}
	return most, from, to
}

// burst returns n instants from the first one on, each a gap after the one before.
func burst(from, gap limit.Micros, n int) []limit.Micros {
	all := make([]limit.Micros, n)
	for i := range all {
		all[i] = from + limit.Micros(i)*gap
	}
	return all
}
