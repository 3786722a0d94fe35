package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/limit"
)

// Usage says what a domain keeps of the past: rows by the hour and by the day, by subject, tier, model and tags.
type Usage struct {
	// Off keeps nothing. The rest means nothing then.
	Off bool
	// Tags are the keys of up to [MaxTags] attributes by whose values rows are told apart too.
	Tags []string
	Keep Keep
}

// Keep says how long rows of usage are kept after the end of their hour or day; 0: there are none. An owner is a subject,
// the group is the whole domain.
type Keep struct {
	OwnerHours, OwnerDays, GroupHours, GroupDays limit.Micros
}

const (
	// MaxTags is how many tags a domain has at most: each multiplies its rows.
	MaxTags = 3
	// maxKeep is the longest that a row of usage is kept: ten years.
	maxKeep = 3653 * day
)

// defaultKeep is what counts where a policy does not say. There are as many rows of subjects as subjects who were
// there, and few of the domain, so that these are kept for longer.
var defaultKeep = Keep{OwnerHours: 3 * day, OwnerDays: 35 * day, GroupHours: 35 * day, GroupDays: 400 * day}

// Usage returns what the domain keeps of the past.
func (d *Domain) Usage() Usage { return d.usage }

func (r *reader) usage(n *yaml.Node) *usageEntry {
	u := &usageEntry{at: r.at(n), keep: defaultKeep}
	if n.Kind == yaml.ScalarNode {
		on, isBool := r.scalar(n).(bool)
		if u.off = !on; !isBool {
			r.rep.error(u.at, "`usage` is off, or a mapping such as { tags: [team], keep: { daily: 90d } }, not %s", describe(n))
		}
		return u
	}
	r.object("`usage`", n, inUsage, func(key string, v *yaml.Node) {
		switch key {
		case "tags":
			u.tags = r.texts(key, v)
		case "keep":
			r.object("`keep`", v, inKeep, func(key string, v *yaml.Node) { r.keep(&u.keep, key, v) })
		}
	})
	return u
}

// keep reads how long the rows of one kind are kept.
func (r *reader) keep(keep *Keep, key string, v *yaml.Node) {
	into, least, of := &keep.OwnerHours, hour, "an hour"
	switch key {
	case "daily":
		into, least, of = &keep.OwnerDays, day, "a day"
	case "domain_hourly":
		into = &keep.GroupHours
	case "domain_daily":
		into, least, of = &keep.GroupDays, day, "a day"
	}
	if on, isBool := r.scalar(v).(bool); isBool && !on {
		*into = 0
		return
	}
	var kept field[length]
	read(r, key, v, &kept, parseLength)
	switch span := limit.Micros(kept.value); {
	case !kept.given:
	case span < least:
		r.rep.error(kept.at, "`%s`: its rows are of %s, so they are kept for that long at least: write off if there shall be none",
			key, of)
	case span > maxKeep:
		r.rep.error(kept.at, "`%s`: rows are kept for ten years at most, 3653d", key)
	default:
		*into = span
	}
}

// addUsage takes over what a file says. One file says all of it, so that what it does not say is the default.
func (c *compiler) addUsage(dr *draft, e *usageEntry) {
	switch {
	case e == nil:
	case dr.usage != nil:
		c.rep.error(e.at, "the `usage` of the domain stands at %s already: one file says all of it", dr.usage.at)
	default:
		dr.usage = e
	}
}

func (c *compiler) usage(dr *draft) {
	d := dr.domain
	d.usage = Usage{Keep: defaultKeep}
	e := dr.usage
	if e == nil {
		return
	}
	if e.off {
		d.usage = Usage{Off: true}
		return
	}
	d.usage.Keep = e.keep
	for _, tag := range e.tags {
		if len(d.usage.Tags) == MaxTags {
			c.rep.error(tag.at, "there are more than %d tags: each multiplies the rows of usage", MaxTags)
			return
		}
		if c.tag(d, tag) {
			d.usage.Tags = append(d.usage.Tags, tag.value)
		}
	}
}

// tag judges the key of an attribute by which rows are told apart.
func (c *compiler) tag(d *Domain, tag field[string]) (ok bool) {
	keys := d.SubjectKeys()
	switch {
	case strings.HasPrefix(tag.value, reservedPrefix):
		c.rep.error(tag.at, "tag %s: keys that begin with `%s` say something about a request, and are no part of its attributes",
			quote(tag.value), reservedPrefix)
	case slices.Contains([]string{"subject", "tier", "model"}, tag.value), len(keys) == 1 && keys[0] == tag.value:
		c.rep.error(tag.at, "tag %s: usage is kept by subject, tier and model anyway", quote(tag.value))
	case slices.Contains(d.usage.Tags, tag.value):
		c.rep.error(tag.at, "tag %s is given twice", quote(tag.value))
	default:
		return true
	}
	return false
}

// explainUsage adds a line that says what is kept of the past, where the policy says it.
func (d *Domain) explainUsage(lines []string) []string {
	u := &d.usage
	switch {
	case u.Off:
		return append(lines, "  usage: none is kept")
	case len(u.Tags) == 0 && u.Keep == defaultKeep:
		return lines
	}
	by := []string{"subject", "tier", "model"}
	for _, tag := range u.Tags {
		by = append(by, word(tag))
	}
	return append(lines, fmt.Sprintf("  usage by %s: %s; of all together %s", enumerate(by),
		kept(u.Keep.OwnerHours, u.Keep.OwnerDays), kept(u.Keep.GroupHours, u.Keep.GroupDays)))
}

// kept says how long rows are kept: "hours for 3 days, days for 35 days".
func kept(hours, days limit.Micros) string {
	say := func(rows string, span limit.Micros) string {
		switch {
		case span == 0:
			return "no " + rows
		case span%day == 0:
			return rows + " for " + count(uint64(span/day), "day")
		}
		return rows + " for " + timeInWords(span)
	}
	return say("hours", hours) + ", " + say("days", days)
}
