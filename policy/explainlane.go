package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Explain says in one plain sentence who waits in the lane, for what, and who goes first. Its own limits are explained
// by themselves.
func (l *Lane) Explain() string {
	return fmt.Sprintf("lane %s: calls wait while %s, for %s at most, %s; %s",
		word(l.Name), l.waitsFor(), timeInWords(l.MaxWait), l.room(), l.turns())
}

// waitsFor says what there is no room in while calls wait.
func (l *Lane) waitsFor() string {
	var full []string
	if l.Upstream != nil {
		full = append(full, "upstream "+word(l.Upstream.Name))
	}
	if len(l.limits) > 0 {
		full = append(full, "the lane")
	}
	return alternatives(full) + " has no room"
}

// room says how many calls wait.
func (l *Lane) room() string {
	says := grouped(int64(l.MaxWaiting)) + " of them"
	if l.MaxWaitingPerSubject < l.MaxWaiting {
		says += ", " + grouped(int64(l.MaxWaitingPerSubject)) + " of one subject"
	}
	return says
}

// turns says who goes before whom.
func (l *Lane) turns() string {
	subjects := "subjects take turns"
	if l.TurnsBy != Requests {
		subjects += " by " + l.TurnsBy.String()
	}
	if len(l.tiers) < 2 {
		return subjects
	}
	first := make([]string, len(l.tiers))
	for i := range l.tiers {
		first[i] = word(l.tiers[i].Name)
		if l.Weights != nil {
			first[i] += " " + grouped(l.Weights[i])
		}
	}
	slices.Reverse(first)
	if l.Weights != nil {
		return fmt.Sprintf("tiers have shares, %s; in a tier %s", strings.Join(first, " : "), subjects)
	}
	return fmt.Sprintf("%s, but a tier that has waited for a turn for %s is next; in a tier %s",
		strings.Join(first, " before "), timeInWords(l.Aging), subjects)
}
