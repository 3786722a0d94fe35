package price

import (
	"bytes"
	"strings"
)

// pattern is a name in which each * stands for any bytes, also none.
type pattern struct {
	prefix string   // what stands before the first star
	middle []string // what stands between two stars
	suffix string   // what stands behind the last star
}

func isPattern(name string) bool { return strings.Contains(name, "*") }

func newPattern(name string) pattern {
	parts := strings.Split(name, "*")
	last := len(parts) - 1
	return pattern{prefix: parts[0], middle: parts[1:last], suffix: parts[last]}
}

// matches reports whether the pattern stands for s, which begins with its prefix.
func (p *pattern) matches(s []byte) bool {
	s = s[len(p.prefix):]
	if len(s) < len(p.suffix) || string(s[len(s)-len(p.suffix):]) != p.suffix {
		return false
	}
	s = s[:len(s)-len(p.suffix)]
	for _, part := range p.middle {
		// The leftmost place leaves the most for the parts behind it.
		i := bytes.Index(s, []byte(part))
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// Matches reports whether the name is the pattern's: each * in it stands for any letters, also none, in whatever case.
func Matches(name, model string) bool {
	name, model = lower(name), lower(model)
	if !isPattern(name) {
		return name == model
	}
	p := newPattern(name)
	return strings.HasPrefix(model, p.prefix) && p.matches([]byte(model))
}
