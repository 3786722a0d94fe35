package rls

import (
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
)

// errMalformed is the cause of all errors of decode.
var errMalformed = errors.New("not a RateLimitRequest")

// decoder turns the bytes of a RateLimitRequest into an engine.Request. It may be used again; what
// it returned is valid until then, and only as long as the bytes are.
type decoder struct {
	request engine.Request
}

func (d *decoder) decode(b []byte) (*engine.Request, error) {
	d.request = engine.Request{Descriptors: d.request.Descriptors[:0]}
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return nil, err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			d.request.Domain, err = f.text("domain")
		case f.is(2, protowire.BytesType):
			err = d.descriptor(f.bytes)
		case f.is(3, protowire.VarintType):
			d.request.Hits = uint32(f.number)
		}
		if err != nil {
			return nil, err
		}
	}
	return &d.request, nil
}

func (d *decoder) descriptor(b []byte) error {
	into := d.grow()
	var override *engine.Override
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			var e policy.Entry
			if e, err = entry(f.bytes); err == nil {
				into.Entries = append(into.Entries, e)
			}
		case f.is(2, protowire.BytesType):
			// A message that comes twice is merged.
			if override == nil {
				override = new(engine.Override)
			}
			err = readOverride(f.bytes, override)
		case f.is(3, protowire.BytesType):
			into.HasHits = true
			err = wrapped(f.bytes, &into.Hits)
		case f.is(4, protowire.VarintType):
			into.GiveBack = f.number != 0
		}
		if err != nil {
			return err
		}
	}
	into.Override = override
	return nil
}

// grow appends an empty descriptor, with the room for entries that an earlier request left.
func (d *decoder) grow() *engine.Descriptor {
	all := d.request.Descriptors
	if len(all) < cap(all) {
		all = all[:len(all)+1]
		last := &all[len(all)-1]
		*last = engine.Descriptor{Entries: last.Entries[:0]}
	} else {
		all = append(all, engine.Descriptor{})
	}
	d.request.Descriptors = all
	return &all[len(all)-1]
}

func entry(b []byte) (e policy.Entry, err error) {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return e, err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			e.Key, err = f.text("key")
		case f.is(2, protowire.BytesType):
			e.Value, err = f.text("value")
		}
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

func readOverride(b []byte, o *engine.Override) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.VarintType):
			o.RequestsPerUnit = uint32(f.number)
		case f.is(2, protowire.VarintType):
			o.Unit = int32(f.number)
		case f.is(3, protowire.BytesType):
			o.HasMultiplier = true
			multiplier := uint64(o.Multiplier)
			err = wrapped(f.bytes, &multiplier)
			o.Multiplier = uint32(multiplier)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wrapped reads a google.protobuf.UInt64Value or UInt32Value.
func wrapped(b []byte, into *uint64) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		if f.is(1, protowire.VarintType) {
			*into = f.number
		}
	}
	return nil
}

// field is one field of a message on the wire.
type field struct {
	tag    protowire.Number
	kind   protowire.Type
	number uint64 // of a varint
	bytes  []byte // of a length-delimited field
}

// is reports whether the field is that one. A known number with another type is an unknown field.
func (f *field) is(tag protowire.Number, kind protowire.Type) bool {
	return f.tag == tag && f.kind == kind
}

// text returns the field as a string that shares the buffer's memory.
func (f *field) text(name string) (string, error) {
	if !utf8.Valid(f.bytes) {
		return "", fmt.Errorf("%w: %s is not valid UTF-8", errMalformed, name)
	}
	return unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes)), nil //nolint:gosec // the caller keeps the buffer alive, as decoder says
}

// next reads the first field of a message and returns what follows.
func next(b []byte) (f field, rest []byte, err error) {
	tag, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, malformed(n)
	}
	if tag > protowire.MaxValidNumber {
		return f, nil, fmt.Errorf("%w: field number %d", errMalformed, tag)
	}
	f.tag, f.kind, b = tag, kind, b[n:]
	switch kind {
	case protowire.VarintType:
		f.number, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(tag, kind, b)
	}
	if n < 0 {
		return f, nil, malformed(n)
	}
	return f, b[n:], nil
}

func malformed(n int) error { return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n)) }
