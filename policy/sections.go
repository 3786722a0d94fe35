package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func (r *reader) tiers(n *yaml.Node) (tiers []*tierEntry) {
	r.list("tiers", n, func(n *yaml.Node) {
		t := &tierEntry{at: r.at(n)}
		tiers = append(tiers, t)
		r.object("a tier", n, inTier, func(key string, v *yaml.Node) {
			switch key {
			case "name":
				r.ownText(key, v, &t.name)
			case "attributes":
				if v.Kind != yaml.MappingNode {
					r.rep.error(r.at(v), "`attributes` must be a mapping, not %s", describe(v))
					return
				}
				t.attributes = r.attributes(v)
			}
		})
	})
	return tiers
}

func (r *reader) subjects(n *yaml.Node) (subjects []*subjectEntry) {
	if isNull(n) {
		return nil
	}
	r.table("`subjects`", n, func(k *yaml.Node, name string, v *yaml.Node) {
		s := &subjectEntry{name: field[string]{name, r.at(k), true}}
		subjects = append(subjects, s)
		r.object("a subject", v, inSubject, func(key string, v *yaml.Node) {
			switch key {
			case "tier":
				r.ownText(key, v, &s.tier)
			case "time_zone":
				r.ownText(key, v, &s.timeZone)
			case "anchor":
				read(r, key, v, &s.anchor, parseDay)
			}
		})
	})
	return subjects
}

func (r *reader) upstreams(n *yaml.Node) (upstreams []*upstreamEntry) {
	r.list("upstreams", n, func(n *yaml.Node) {
		u := &upstreamEntry{at: r.at(n)}
		upstreams = append(upstreams, u)
		r.object("an upstream", n, inUpstream, func(key string, v *yaml.Node) {
			switch key {
			case "name":
				r.ownText(key, v, &u.name)
			case "models":
				u.models = r.texts(key, v)
			case "limits":
				u.limits = r.limits(v)
			}
		})
	})
	return upstreams
}

// texts reads a list of texts, or a single one.
func (r *reader) texts(name string, n *yaml.Node) []field[string] {
	elements := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		elements = n.Content
	}
	var texts []field[string]
	for _, e := range elements {
		var text field[string]
		if r.ownText(name, follow(e), &text); text.given {
			texts = append(texts, text)
		}
	}
	return texts
}

func (r *reader) limits(n *yaml.Node) (limits []*limitEntry) {
	r.list("limits", n, func(n *yaml.Node) {
		l := &limitEntry{at: r.at(n)}
		limits = append(limits, l)
		r.object("a limit", n, inLimit, func(key string, v *yaml.Node) {
			before := r.rep.errors
			r.limitField(l, key, v)
			l.broken = l.broken || r.rep.errors > before
		})
	})
	return limits
}

func (r *reader) limitField(l *limitEntry, key string, v *yaml.Node) {
	switch key {
	case "name":
		r.ownText(key, v, &l.name)
	case "meter":
		r.ownText(key, v, &l.meter)
	case "algorithm":
		r.ownText(key, v, &l.algorithm)
	case "starts":
		r.ownText(key, v, &l.starts)
	case "time_zone":
		r.ownText(key, v, &l.timeZone)
	case "week_start":
		r.ownText(key, v, &l.weekStart)
	case "anchor":
		r.anchor(v, &l.anchor)
	case "shadow":
		r.ownBool(key, v, &l.shadow)
	case "clamp":
		r.ownBool(key, v, &l.clamp)
	case "count_denied":
		r.ownBool(key, v, &l.countDenied)
	case "count_cache_read":
		r.ownBool(key, v, &l.countCacheRead)
	case "counts":
		r.ownText(key, v, &l.counts)
	case "on_lapse":
		r.ownText(key, v, &l.onLapse)
	case "on_store_error":
		r.ownText(key, v, &l.onStoreError)
	case "local_share":
		read(r, key, v, &l.localShare, parseShare)
	case "warn_at":
		r.warnAt(v, &l.warnAt)
	case "tiers":
		l.tiersAt = r.at(v)
		r.table("`tiers` of a limit", v, func(k *yaml.Node, tier string, v *yaml.Node) {
			q := &quantityEntry{tier: field[string]{tier, r.at(k), true}}
			l.tiers = append(l.tiers, q)
			r.tierQuantity(q, v)
		})
	case "ceiling":
		if v.Kind != yaml.MappingNode {
			r.quantityField(&l.base, key, v)
			return
		}
		l.ceilingsAt = r.at(v)
		r.table("`ceiling`", v, func(k *yaml.Node, tier string, v *yaml.Node) {
			c := ceilingEntry{tier: field[string]{tier, r.at(k), true}}
			read(r, key, v, &c.ceiling, parseCeiling)
			l.ceilings = append(l.ceilings, c)
		})
	default:
		r.quantityField(&l.base, key, v)
	}
}

// tierQuantity reads what a limit allows to one tier: a mapping, or the word unlimited.
func (r *reader) tierQuantity(q *quantityEntry, n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		r.object("a tier of a limit", n, inQuantity, func(key string, v *yaml.Node) { r.quantityField(q, key, v) })
		return
	}
	if s, _ := scalarText(n); n.Kind != yaml.ScalarNode || s != unlimitedWord {
		r.rep.error(r.at(n), "a tier of a limit must be a mapping such as { limit: 10/minute }, or the word unlimited, not %s",
			describe(n))
	}
	q.unlimited = true
}

func (r *reader) quantityField(q *quantityEntry, key string, v *yaml.Node) {
	switch key {
	case "limit":
		read(r, key, v, &q.limit, parseQuantity)
	case "rate":
		read(r, key, v, &q.rate, parseQuantity)
	case "burst":
		read(r, key, v, &q.burst, parseAmount)
	case "per_request":
		read(r, key, v, &q.perRequest, parseAmount)
	case "ceiling":
		read(r, key, v, &q.ceiling, parseCeiling)
	case "message":
		r.ownText(key, v, &q.message)
	case "upgrade_url":
		r.ownText(key, v, &q.upgradeURL)
	}
}

func parseCeiling(s string) (c ceiling, err error) {
	if n := len(s); n > 0 && s[n-1] == '%' {
		c.part = true
		c.share, err = parseShare(s)
		return c, err
	}
	c.amount, err = parseAmount(s)
	return c, err
}

func (r *reader) warnAt(n *yaml.Node, into *[]field[Share]) {
	for _, text := range r.texts("warn_at", n) {
		share, err := parseShare(text.value)
		if err == nil && share == 0 {
			err = fmt.Errorf("a warning at 0%% would be due at once")
		}
		if err != nil {
			r.rep.error(text.at, "`warn_at`: %v", err)
			continue
		}
		*into = append(*into, field[Share]{share, text.at, true})
	}
}

// anchor reads the day on which months begin, or the day and the month on which years do.
func (r *reader) anchor(n *yaml.Node, into *field[anchor]) {
	var day field[anchor]
	var month field[int]
	switch n.Kind {
	case yaml.ScalarNode:
		read(r, "anchor", n, &day, parseAnchorDay)
	default:
		r.object("`anchor`", n, inAnchor, func(key string, v *yaml.Node) {
			switch key {
			case "day":
				read(r, key, v, &day, parseAnchorDay)
			case "month":
				read(r, key, v, &month, parseMonth)
			}
		})
	}
	day.value.month = month.value
	*into = field[anchor]{day.value, r.at(n), true}
}

// parseAnchorDay reads a day, or that of the subject with one for those who have none: `15`, `subject`,
// `subject or 15`.
func parseAnchorDay(s string) (a anchor, err error) {
	if s, a.subject = cutSubject(s); a.subject && s == "" {
		return a, nil
	}
	a.day, err = parseDay(s)
	return a, err
}

// cutSubject returns what counts where the subject says nothing, of a value that is the subject's own.
func cutSubject(s string) (otherwise string, ofSubject bool) {
	if s == "subject" {
		return "", true
	}
	otherwise, ofSubject = strings.CutPrefix(s, "subject or ")
	return strings.TrimSpace(otherwise), ofSubject
}

func parseDay(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 31 {
		return 0, fmt.Errorf("%s is no day of a month, 1…31", quote(s))
	}
	return n, nil
}

// parseMonth reads the number of a month or its name.
func parseMonth(s string) (int, error) {
	for m := time.January; m <= time.December; m++ {
		if s == strconv.Itoa(int(m)) || isNameOf(s, m.String()) {
			return int(m), nil
		}
	}
	return 0, fmt.Errorf("%s is no month: write 1…12 or its name", quote(s))
}
