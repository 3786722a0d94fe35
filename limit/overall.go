package limit

// Tally forms the overall verdict of a decision from the verdicts of its limits, by the rule of the
// established contract: over if any limit that is no quota refuses, or if there are quotas and all
// of them refuse. The zero Tally is ready to use and admits.
type Tally struct {
	refused     bool // by a limit that is no quota
	quotas      int
	quotasSpent int
}

// Add counts the verdict of one limit.
func (t *Tally) Add(quota, refused bool) {
	switch {
	case quota:
		t.quotas++
		if refused {
			t.quotasSpent++
		}
	case refused:
		t.refused = true
	}
}

// Refuses reports the overall verdict.
func (t Tally) Refuses() bool {
	return t.refused || t.quotas > 0 && t.quotasSpent == t.quotas
}
