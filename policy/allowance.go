package policy

import (
	"fmt"
	"strings"
)

// What one subject may have of its own: overrides (override.go) and grants.

// OfSubject reports whether the limit lies under a subject, for whom there may be an override or a grant.
func (l *Limit) OfSubject() bool { return l.node != nil && l.node.payer() != nil }

// ParseAmount reads how much of what the meter counts, as policies write it: "5_000", "2M"; of money "$5".
func (m Meter) ParseAmount(text string) (int64, error) {
	a, err := parseAmount(text)
	switch {
	case err != nil && m == Cost:
		return 0, fmt.Errorf("%s is no amount: write it as $5 or $0.50", quote(text))
	case err != nil:
		return 0, fmt.Errorf("%s is no amount: write it as 10, 50_000 or 5M", quote(text))
	case a.money && m != Cost:
		return 0, fmt.Errorf("%s is money, and the limit counts %ss: leave out the $", quote(text), m.Unit())
	case !a.money && m == Cost:
		return 0, fmt.Errorf("%s is no money: write it as $%s", quote(text), clip(strings.TrimSpace(text)))
	}
	return a.n, nil
}

// LimitNamed returns the limit of that path, nil if there is none; then near is the path that is most like it, if one
// is.
func (d *Domain) LimitNamed(path string) (l *Limit, near string) {
	paths := make([]string, 0, len(d.limits))
	for _, l := range d.limits {
		if l.Path == path {
			return l, ""
		}
		paths = append(paths, l.Path)
	}
	return nil, nearest(path, paths)
}
