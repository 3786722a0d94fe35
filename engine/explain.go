package engine

import (
	"context"
	"strconv"
)

// Explanation is why a call would be decided as it would be.
type Explanation struct {
	Admission
	// TierFrom says where the tier of the call comes from.
	TierFrom TierSource
	// Reasons are the limits that apply, the one that binds first.
	Reasons []Reason
}

// Reason is why a limit applies.
type Reason struct {
	Listed
	// Because are the attributes that lead to it, "user=alice"; none of a limit of the whole domain, or of an upstream.
	Because []string
	// Place is where it stands in the policy, FILE:LINE:COLUMN, and Meaning what it means there.
	Place   string
	Meaning []string
}

// Explain says which limits apply to a call, and why. Its errors are those of [Engine.Check].
func (e *Engine) Explain(ctx context.Context, call *Call, x *Explanation) error {
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	x.Reasons = x.Reasons[:0]
	if err := e.check(ctx, call, &x.Admission, s); err != nil {
		return err
	}
	x.TierFrom = s.everybody.from
	paths := make(map[*Applied][]string)
	for _, l := range s.links {
		if l.op >= 0 && l.op < len(x.Limits) {
			paths[&x.Limits[l.op]] = s.matches[l.descriptor].Path()
		}
	}
	for _, listed := range x.Listing() {
		r := Reason{Listed: listed}
		if l := listed.Applied; l != nil {
			r.Because, r.Place, r.Meaning = paths[l], placeOf(l.Limit.File, l.Limit.Line, l.Limit.Column), l.Limit.Explain()
		} else if rule := listed.Status.Rule; rule != nil {
			for i := range x.Statuses {
				if &x.Statuses[i] == listed.Status {
					r.Because = s.matches[i].Path()
				}
			}
			r.Place, r.Meaning = placeOf(rule.File, rule.Line, rule.Column), []string{rule.Explain()}
		}
		x.Reasons = append(x.Reasons, r)
	}
	return nil
}

func placeOf(file string, line, column int) string {
	return file + ":" + strconv.Itoa(line) + ":" + strconv.Itoa(column)
}
