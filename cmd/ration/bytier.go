package main

import (
	"encoding"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"github.com/rationhq/ration/policy"
)

// byTier is a value for all tiers, or one for each: 20, free=20,premium=50 or 20,premium=50.
type byTier[T any, P interface {
	*T
	encoding.TextUnmarshaler
}] struct {
	others *T // of tiers that are not named; nil: nothing is said of them
	named  map[string]T
	text   string
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *byTier[T, P]) UnmarshalText(text []byte) error {
	*b = byTier[T, P]{named: map[string]T{}, text: string(text)}
	for part := range strings.SplitSeq(string(text), ",") {
		tier, value, named := strings.Cut(part, "=")
		if !named {
			tier, value = "", part
		}
		_, twice := b.named[tier]
		if twice = twice || !named && b.others != nil; twice {
			return fmt.Errorf("%q says two things of one tier", text)
		}
		var v T
		if err := P(&v).UnmarshalText([]byte(value)); err != nil {
			return err
		}
		if named {
			b.named[tier] = v
		} else {
			b.others = &v
		}
	}
	return nil
}

// given says that the flag was there.
func (b *byTier[T, P]) given() bool { return b.text != "" }

// of returns the value of a tier; false if nothing is said of it.
func (b *byTier[T, P]) of(tier string) (value T, ok bool) {
	if v, named := b.named[tier]; named {
		return v, true
	}
	if b.others == nil {
		return value, false
	}
	return *b.others, true
}

// check says which tier is named that the domain does not have.
func (b *byTier[T, P]) check(flag string, d *policy.Domain) error {
	for name := range b.named {
		if _, known := d.TierNamed(name); known {
			continue
		}
		if len(d.Tiers()) == 0 {
			return misused("%s: the domain %s has no tiers: say one value for all", flag, d.Name())
		}
		var names []string
		for _, t := range d.Tiers() {
			names = append(names, t.Name)
		}
		return misused("%s: the domain %s has no tier %q, only %s", flag, d.Name(), name, strings.Join(names, ", "))
	}
	return nil
}

// amount is a whole number of users, or of tokens.
type amount int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *amount) UnmarshalText(text []byte) error {
	const most = 1_000_000_000
	digits := strings.ReplaceAll(string(text), "_", "")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > most {
		return fmt.Errorf("%q is no number: use one from 0 to 1_000_000_000", text)
	}
	*a = amount(n)
	return nil
}

// decimal is a number that need not be whole.
type decimal struct{ *big.Rat }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *decimal) UnmarshalText(text []byte) error {
	if !regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?$`).Match(text) {
		return fmt.Errorf("%q is no number: use one such as 10 or 2.5", text)
	}
	d.Rat, _ = new(big.Rat).SetString(string(text))
	return nil
}

// String returns the number without zeros that say nothing: "2.5".
func (d decimal) String() string {
	digits, _ := d.FloatPrec()
	return d.FloatString(digits)
}

// modelName is the name of a model.
type modelName string

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *modelName) UnmarshalText(text []byte) error {
	if *m = modelName(text); *m == "" {
		return fmt.Errorf("a name is missing: use one such as claude-haiku-4-5")
	}
	return nil
}
