package rls

import (
	"math"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/headers"
)

// answer is all that a RateLimitResponse says.
type answer struct {
	decision       *engine.Decision
	headers        []headers.Field // that Envoy is asked to add to the response
	requestHeaders []headers.Field // and to the request, of one that is admitted
	body           []byte
	metadata       []byte // an encoded google.protobuf.Struct; nil for none
}

// appendTo appends the answer as a RateLimitResponse. This is the one place where a decision becomes
// Envoy's words.
func (a *answer) appendTo(b []byte) []byte {
	b = appendVarint(b, 1, uint64(code(a.decision.Over)))
	for i := range a.decision.Statuses {
		var start int
		b, start = open(b, 2)
		b = appendStatus(b, &a.decision.Statuses[i])
		b = shut(b, start)
	}
	b = appendHeaders(b, 3, a.headers)
	b = appendHeaders(b, 4, a.requestHeaders)
	if len(a.body) > 0 {
		b = protowire.AppendTag(b, 5, protowire.BytesType)
		b = protowire.AppendBytes(b, a.body)
	}
	if a.metadata != nil {
		b = protowire.AppendTag(b, 6, protowire.BytesType)
		b = protowire.AppendBytes(b, a.metadata)
	}
	return b
}

func appendHeaders(b []byte, tag protowire.Number, all []headers.Field) []byte {
	for _, h := range all {
		var start int
		b, start = open(b, tag)
		b = appendText(b, 1, h.Name)
		b = appendText(b, 2, h.Value)
		b = shut(b, start)
	}
	return b
}

func code(over bool) ratelimitv3.RateLimitResponse_Code {
	if over {
		return ratelimitv3.RateLimitResponse_OVER_LIMIT
	}
	return ratelimitv3.RateLimitResponse_OK
}

func appendStatus(b []byte, s *engine.Status) []byte {
	b = appendVarint(b, 1, uint64(code(s.Over)))
	switch {
	case s.Unlimited:
		return appendVarint(b, 3, math.MaxUint32)
	case !s.Limited:
		return b
	}
	ceiling, remaining := s.Counts()
	b, start := open(b, 2)
	b = appendVarint(b, 1, uint64(min(ceiling, math.MaxUint32)))
	b = appendVarint(b, 2, uint64(s.Limit.Unit))
	b = appendText(b, 3, s.Limit.Name)
	if s.Limit.Multiplier != 0 {
		var inner int
		b, inner = open(b, 4)
		b = appendVarint(b, 1, uint64(s.Limit.Multiplier))
		b = shut(b, inner)
	}
	b = shut(b, start)
	b = appendVarint(b, 3, uint64(min(remaining, math.MaxUint32)))
	b, start = open(b, 4)
	b = appendVarint(b, 1, uint64(s.ResetAfter.Seconds()))
	return shut(b, start)
}

// appendVarint appends a field, unless it holds the default, which proto3 leaves out.
func appendVarint(b []byte, tag protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, tag, protowire.VarintType), v)
}

func appendText(b []byte, tag protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, tag, protowire.BytesType), s)
}

// open begins a message within the message and leaves a byte for its length.
func open(b []byte, tag protowire.Number) (_ []byte, start int) {
	b = append(protowire.AppendTag(b, tag, protowire.BytesType), 0)
	return b, len(b)
}

// shut ends the message that began at start. Only messages of 128 bytes and more have to move for
// their length.
func shut(b []byte, start int) []byte {
	n := uint64(len(b) - start)
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	more := protowire.SizeVarint(n) - 1
	for range more {
		b = append(b, 0)
	}
	copy(b[start+more:], b[start:len(b)-more])
	protowire.AppendVarint(b[:start-1], n)
	return b
}
