package engine

import (
	"encoding/binary"
	"errors"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// note is what a reservation leaves in the store under its id, so that whichever replica settles it knows whose it is
// and what was promised.
type note struct {
	caller   Caller
	reserved limit.Micros // when, by the clock of the replica that did it
	tier     string       // in which the caller was then
	estimate price.Usage
	price    Price
	clamped  bool // a limit had cut the output of the estimate
	left     bool // it was left in the store, by a reservation; else this process alone knows of it, or nobody
	charged  bool // its usage was reported, and charged by settled
	settled  Price
}

// noteVersion is the first byte of a note. One that is not known is not read.
const noteVersion = 2

var errNote = errors.New("the reservation was made by another version of ration, which left a note that this one cannot read")

// part returns what the rows of the call are told apart by, whichever model has served it: the same as long as it lives.
func (n *note) part(model string) part { return part{n.reserved, n.tier, model} }

// flags are what a note says in one byte, from the lowest bit on.
func (n *note) flags() [7]*bool {
	return [...]*bool{
		&n.price.Known, &n.price.Assumed, &n.left, &n.charged, &n.settled.Known, &n.settled.Assumed, &n.clamped,
	}
}

// append appends the note as bytes: numbers as varints, strings behind their length.
func (n *note) append(b []byte) []byte {
	b = append(b, noteVersion)
	b = binary.AppendVarint(b, int64(n.reserved))
	b = appendText(b, n.caller.Domain)
	b = appendText(b, n.caller.Model)
	b = appendText(b, n.caller.Tier)
	b = appendText(b, n.tier)
	b = binary.AppendUvarint(b, uint64(len(n.caller.Attributes)))
	for i := range n.caller.Attributes {
		b = appendText(appendText(b, n.caller.Attributes[i].Key), n.caller.Attributes[i].Value)
	}
	b = appendUsage(b, n.estimate)
	var flags byte
	for i, set := range n.flags() {
		if *set {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	for _, p := range [...]*Price{&n.price, &n.settled} {
		if p.Known {
			b = appendPrice(b, p)
		}
	}
	return b
}

func appendPrice(b []byte, p *Price) []byte {
	for _, r := range [...]price.Rate{p.Input, p.CacheRead, p.CacheWrite, p.Output} {
		b = binary.AppendVarint(b, int64(r))
	}
	return appendText(appendText(b, p.Model), p.Version)
}

func appendNumber(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendUsage(b []byte, u price.Usage) []byte {
	for _, n := range [...]int64{u.Input, u.CacheRead, u.CacheWrite, u.Output} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// readNote reads what append has written.
func readNote(b []byte) (n note, err error) {
	r := noteReader{rest: b}
	if r.byte() != noteVersion {
		return note{}, errNote
	}
	n.reserved = limit.Micros(r.number())
	n.caller.Domain, n.caller.Model, n.caller.Tier = r.text(), r.text(), r.text()
	n.tier = r.text()
	for range r.count() {
		n.caller.Attributes = append(n.caller.Attributes, policy.Entry{Key: r.text(), Value: r.text()})
	}
	for _, into := range [...]*int64{&n.estimate.Input, &n.estimate.CacheRead, &n.estimate.CacheWrite, &n.estimate.Output} {
		*into = r.number()
	}
	flags := r.byte()
	for i, into := range n.flags() {
		*into = flags&(1<<i) != 0
	}
	for _, p := range [...]*Price{&n.price, &n.settled} {
		if !p.Known {
			continue
		}
		for _, into := range [...]*price.Rate{&p.Input, &p.CacheRead, &p.CacheWrite, &p.Output} {
			*into = price.Rate(r.number())
		}
		p.Model, p.Version = r.text(), r.text()
	}
	if r.broken || len(r.rest) > 0 {
		return note{}, errNote
	}
	return n, nil
}

// noteReader takes a note apart from its front. What it returns means nothing once it is broken.
type noteReader struct {
	rest   []byte
	broken bool
}

func (r *noteReader) byte() (b byte) {
	if len(r.rest) == 0 {
		r.broken = true
		return 0
	}
	b, r.rest = r.rest[0], r.rest[1:]
	return b
}

func (r *noteReader) number() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.broken = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count reads a number of things of which each has at least a byte.
func (r *noteReader) count() int {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(len(r.rest)-size) {
		r.broken = true
		return 0
	}
	r.rest = r.rest[size:]
	return int(n)
}

func (r *noteReader) text() string {
	n := r.count()
	if r.broken {
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
