package subject

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rationhq/ration/limit"
)

// The bounds of a subject. Lengths are in bytes.
const (
	MaxName       = 1024 // of a subject, and of a domain
	MaxKey        = 256  // of a descriptor key
	MaxTier       = 128
	MaxAttributes = 32
	MaxAttribute  = 1024 // of the value of an attribute
	MaxOverrides  = 64
	MaxGrants     = 64
	MaxAPIKeys    = 100
	MaxPath       = 2048 // of the path of a limit
	MaxQuantity   = 64
	MaxGrantID    = 64
	MaxLabel      = 128
	MaxReason     = 1024
	MaxActor      = 256
	MaxCredential = 256
	MaxAction     = 64
	// MaxRecord is for everything that is kept of a subject together, as it is written down.
	MaxRecord = 64 << 10
)

// reserved begins the names of entries that mean something to ration itself.
const reserved = "ration."

// problems collects what is wrong.
type problems struct{ all []error }

func (p *problems) add(field, why string, args ...any) {
	p.all = append(p.all, invalid(field, why, args...))
}

// text checks a text that may have most bytes, and that has to be there unless empty says that it need not.
func (p *problems) text(field, value string, most int, empty bool) {
	switch {
	case value == "" && !empty:
		p.add(field, "it is missing")
	case len(value) > most:
		p.add(field, "it has %d bytes: %d are the most", len(value), most)
	case !utf8.ValidString(value):
		p.add(field, "it is not UTF-8")
	}
}

func (p *problems) expires(field string, at limit.Micros) {
	if at < 0 || int64(at) > limit.MaxAmount {
		p.add(field, "%d is no instant: it is microseconds since 1970, or 0 for never", int64(at))
	}
}

func (p *problems) count(field string, n, most int) {
	if n > most {
		p.add(field, "there are %d: %d are the most; remove those that are no longer needed", n, most)
	}
}

// Validate reports everything that is wrong with the subject, as [ErrInvalid]. Directories call it.
func (s *Subject) Validate() error {
	p := &problems{}
	p.text("domain", s.Domain, MaxName, false)
	p.text("name", s.Name, MaxName, false)
	p.text("key", s.Key, MaxKey, true)
	p.notReserved("key", s.Key)
	p.text("tier", s.Tier, MaxTier, true)
	p.zone(s.Zone)
	if s.Anchor < 0 || s.Anchor > 31 {
		p.add("anchor", "%d is no day of a month: it is 1…31, or 0 for none", s.Anchor)
	}
	p.attributes(s)
	p.overrides(s.Overrides)
	p.grants(s.Grants)
	p.apiKeys(s.APIKeys)
	p.text("corrected.limit", s.Corrected.Limit, MaxPath, true)
	p.expires("corrected.at", s.Corrected.At)
	return errors.Join(p.all...)
}

func (p *problems) zone(name string) {
	if name == "" {
		return
	}
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		p.add("zone", "%.64q is no time zone: it is an IANA name such as Europe/Berlin, or UTC", name)
	}
}

func (p *problems) notReserved(field, key string) {
	if strings.HasPrefix(key, reserved) {
		p.add(field, "%.64q means something to ration itself: leave out %s", key, reserved)
	}
}

func (p *problems) attributes(s *Subject) {
	p.count("attributes", len(s.Attributes), MaxAttributes)
	for key, value := range s.Attributes {
		field := fmt.Sprintf("attributes[%.64q]", key)
		p.text(field+".key", key, MaxKey, false)
		p.notReserved(field+".key", key)
		p.text(field, value, MaxAttribute, false)
		if key != "" && key == s.Key {
			p.add(field, "it is the key that names the subject, whose value is the name: leave it out")
		}
	}
}

func (p *problems) overrides(all []Override) {
	p.count("overrides", len(all), MaxOverrides)
	seen := make(map[string]bool, len(all))
	for i := range all {
		o, field := &all[i], fmt.Sprintf("overrides[%d]", i)
		p.text(field+".limit", o.Limit, MaxPath, false)
		p.text(field+".quantity", o.Quantity, MaxQuantity, false)
		p.text(field+".reason", o.Reason, MaxReason, true)
		p.expires(field+".expires", o.Expires)
		if seen[o.Limit] {
			p.add(field+".limit", "%.64q has two overrides: keep one of them", o.Limit)
		}
		seen[o.Limit] = true
	}
}

func (p *problems) grants(all []Grant) {
	p.count("grants", len(all), MaxGrants)
	seen := make(map[string]bool, len(all))
	for i := range all {
		g, field := &all[i], fmt.Sprintf("grants[%d]", i)
		p.text(field+".id", g.ID, MaxGrantID, false)
		p.text(field+".limit", g.Limit, MaxPath, false)
		p.text(field+".reason", g.Reason, MaxReason, true)
		p.expires(field+".expires", g.Expires)
		if g.Amount < 1 || g.Amount > limit.MaxAmount {
			p.add(field+".amount", "%d is out of range: it is 1…%d", g.Amount, limit.MaxAmount)
		}
		if seen[g.ID] {
			p.add(field+".id", "%.64q was granted before: give another grant another id", g.ID)
		}
		seen[g.ID] = true
	}
}

func (p *problems) apiKeys(all []APIKey) {
	p.count("api_keys", len(all), MaxAPIKeys)
	seen := make(map[KeyHash]bool, len(all))
	for i := range all {
		k, field := &all[i], fmt.Sprintf("api_keys[%d]", i)
		p.text(field+".label", k.Label, MaxLabel, true)
		p.expires(field+".created", k.Created)
		switch {
		case k.Hash == KeyHash{}:
			p.add(field+".hash", "it is missing: it is the SHA-256 of the key")
		case seen[k.Hash]:
			p.add(field, "the key is there already: leave it out")
		}
		seen[k.Hash] = true
	}
}

func (p *problems) ref(r Ref) {
	p.text("domain", r.Domain, MaxName, false)
	p.text("name", r.Name, MaxName, false)
}

// validate reports what is wrong with who changes something.
func (b *By) validate(p *problems) {
	p.text("actor", b.Actor, MaxActor, false)
	p.text("reason", b.Reason, MaxReason, false)
	p.text("credential", b.Credential, MaxCredential, true)
	p.text("action", b.Action, MaxAction, true)
	p.expires("at", b.At)
}
