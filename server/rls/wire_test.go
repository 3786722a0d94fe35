package rls

import (
	"context"
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/headers"
	"github.com/rationhq/ration/server/recovery"
	"github.com/rationhq/ration/store/memory"
)

// fromGenerated says in the engine's words what the generated type holds: the truth that decode is
// compared with.
func fromGenerated(m *ratelimitv3.RateLimitRequest) *engine.Request {
	r := &engine.Request{Domain: m.GetDomain(), Hits: m.GetHitsAddend()}
	for _, d := range m.GetDescriptors() {
		into := engine.Descriptor{GiveBack: d.GetIsNegativeHits()}
		for _, e := range d.GetEntries() {
			into.Entries = append(into.Entries, policy.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
		if o := d.GetLimit(); o != nil {
			into.Override = &engine.Override{
				RequestsPerUnit: o.GetRequestsPerUnit(), Unit: int32(o.GetUnit()),
				Multiplier: o.GetUnitMultiplier().GetValue(), HasMultiplier: o.GetUnitMultiplier() != nil,
			}
		}
		if h := d.GetHitsAddend(); h != nil {
			into.HasHits, into.Hits = true, h.GetValue()
		}
		r.Descriptors = append(r.Descriptors, into)
	}
	return r
}

func sameRequest(a, b *engine.Request) bool {
	if a.Domain != b.Domain || a.Hits != b.Hits || len(a.Descriptors) != len(b.Descriptors) {
		return false
	}
	for i := range a.Descriptors {
		x, y := &a.Descriptors[i], &b.Descriptors[i]
		if x.GiveBack != y.GiveBack || x.HasHits != y.HasHits || x.Hits != y.Hits || len(x.Entries) != len(y.Entries) {
			return false
		}
		if (x.Override == nil) != (y.Override == nil) || x.Override != nil && *x.Override != *y.Override {
			return false
		}
		for j := range x.Entries {
			if x.Entries[j] != y.Entries[j] {
				return false
			}
		}
	}
	return true
}

func randomRequest(r *rapid.T) *ratelimitv3.RateLimitRequest {
	text := rapid.String()
	m := &ratelimitv3.RateLimitRequest{Domain: text.Draw(r, "domain"), HitsAddend: rapid.Uint32().Draw(r, "hits")}
	for range rapid.IntRange(0, 4).Draw(r, "descriptors") {
		d := &commonv3.RateLimitDescriptor{IsNegativeHits: rapid.Bool().Draw(r, "negative")}
		for range rapid.IntRange(0, 4).Draw(r, "entries") {
			d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: text.Draw(r, "key"), Value: text.Draw(r, "value")})
		}
		if rapid.Bool().Draw(r, "override") {
			d.Limit = &commonv3.RateLimitDescriptor_RateLimitOverride{
				RequestsPerUnit: rapid.Uint32().Draw(r, "rpu"), Unit: typev3.RateLimitUnit(rapid.Int32().Draw(r, "unit")),
			}
			if rapid.Bool().Draw(r, "multiplied") {
				d.Limit.UnitMultiplier = wrapperspb.UInt32(rapid.Uint32().Draw(r, "multiplier"))
			}
		}
		if rapid.Bool().Draw(r, "own hits") {
			d.HitsAddend = wrapperspb.UInt64(rapid.Uint64().Draw(r, "own"))
		}
		m.Descriptors = append(m.Descriptors, d)
	}
	return m
}

// Any request reads the same by hand and by the generated types, also from a decoder that has read
// others before.
func TestDecode(t *testing.T) {
	var used decoder
	rapid.Check(t, func(r *rapid.T) {
		m := randomRequest(r)
		b, err := proto.Marshal(m)
		if err != nil {
			r.Fatal(err)
		}
		got, err := used.decode(b)
		if err != nil {
			r.Fatalf("decode: %v", err)
		}
		if want := fromGenerated(m); !sameRequest(got, want) {
			r.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

// FuzzDecode: any bytes are taken or refused just as the generated types do it, and mean the same.
func FuzzDecode(f *testing.F) {
	seed, err := proto.Marshal(&ratelimitv3.RateLimitRequest{
		Domain: "d", HitsAddend: 3,
		Descriptors: []*commonv3.RateLimitDescriptor{{
			Entries:    []*commonv3.RateLimitDescriptor_Entry{{Key: "k", Value: "v"}},
			Limit:      &commonv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 5, Unit: 2, UnitMultiplier: wrapperspb.UInt32(4)},
			HitsAddend: wrapperspb.UInt64(0), IsNegativeHits: true,
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x01, 0xff})                   // a domain that is no UTF-8
	f.Add(append(append([]byte{}, seed...), seed...)) // everything twice
	f.Add([]byte{0x0b, 0x0c})                         // a group
	f.Add([]byte{0x08, 0x01})                         // the domain as a number
	f.Fuzz(func(t *testing.T, b []byte) {
		var m ratelimitv3.RateLimitRequest
		truth := proto.Unmarshal(b, &m)
		var d decoder
		got, err := d.decode(b)
		if (truth == nil) != (err == nil) {
			t.Fatalf("the generated types say %v, decode says %v", truth, err)
		}
		if err == nil && !sameRequest(got, fromGenerated(&m)) {
			t.Fatalf("got %+v\nwant %+v", got, fromGenerated(&m))
		}
	})
}

// What is written by hand is what the generated types write and read.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringN(0, 200, 1000)
		a := answer{decision: &engine.Decision{Over: rapid.Bool().Draw(r, "over")}}
		for range rapid.IntRange(0, 4).Draw(r, "statuses") {
			a.decision.Statuses = append(a.decision.Statuses, engine.Status{
				Limited: rapid.Bool().Draw(r, "limited"), Unlimited: rapid.Bool().Draw(r, "unlimited"), Over: rapid.Bool().Draw(r, "status over"),
				Limit: engine.Limit{
					Name: text.Draw(r, "name"), RequestsPerUnit: rapid.Int64Range(0, limit.MaxAmount).Draw(r, "rpu"),
					Unit: policy.Unit(rapid.IntRange(1, 7).Draw(r, "unit")), Multiplier: rapid.Uint32().Draw(r, "multiplier"),
				},
				Remaining:  rapid.Int64Range(0, limit.MaxAmount).Draw(r, "remaining"),
				ResetAfter: limit.Micros(rapid.Int64Range(1, limit.MaxAmount).Draw(r, "reset")),
			})
		}
		for range rapid.IntRange(0, 3).Draw(r, "headers") {
			a.headers = append(a.headers, headers.Field{Name: text.Draw(r, "header"), Value: text.Draw(r, "header value")})
		}
		for range rapid.IntRange(0, 3).Draw(r, "request headers") {
			a.requestHeaders = append(a.requestHeaders, headers.Field{Name: text.Draw(r, "name of one"), Value: text.Draw(r, "its value")})
		}
		a.body = []byte(text.Draw(r, "body"))
		b := a.appendTo([]byte("before"))
		if string(b[:6]) != "before" {
			r.Fatal("what stood before was changed")
		}
		var m ratelimitv3.RateLimitResponse
		if err := proto.Unmarshal(b[6:], &m); err != nil {
			r.Fatalf("the generated types do not read it: %v", err)
		}
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			r.Fatal("it holds unknown fields")
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		if err != nil || string(again) != string(b[6:]) {
			r.Fatalf("the generated types write\n%x, not\n%x (%v)", again, b[6:], err)
		}
		compareWithGenerated(r, &a, &m)
	})
}

func compareHeaders(r *rapid.T, want []headers.Field, got []*corev3.HeaderValue) {
	if len(got) != len(want) {
		r.Fatalf("%d headers, want %d", len(got), len(want))
	}
	for i, h := range got {
		if h.GetKey() != want[i].Name || h.GetValue() != want[i].Value {
			r.Fatalf("header %d is %v", i, h)
		}
	}
}

func compareWithGenerated(r *rapid.T, a *answer, m *ratelimitv3.RateLimitResponse) {
	if (m.GetOverallCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT) != a.decision.Over || string(m.GetRawBody()) != string(a.body) {
		r.Fatalf("overall code or body differ: %v", m)
	}
	if len(m.GetStatuses()) != len(a.decision.Statuses) {
		r.Fatalf("%d statuses", len(m.GetStatuses()))
	}
	compareHeaders(r, a.headers, m.GetResponseHeadersToAdd())
	compareHeaders(r, a.requestHeaders, m.GetRequestHeadersToAdd())
	for i, got := range m.GetStatuses() {
		want := a.decision.Statuses[i]
		if (got.GetCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT) != want.Over {
			r.Fatalf("status %d: code %v", i, got.GetCode())
		}
		switch {
		case want.Unlimited:
			if got.GetLimitRemaining() != 1<<32-1 || got.GetCurrentLimit() != nil {
				r.Fatalf("status %d, unlimited: %v", i, got)
			}
		case !want.Limited:
			if got.GetCurrentLimit() != nil || got.GetLimitRemaining() != 0 || got.GetDurationUntilReset() != nil {
				r.Fatalf("status %d, without limit: %v", i, got)
			}
		default:
			l := got.GetCurrentLimit()
			if l.GetName() != want.Limit.Name || int64(l.GetRequestsPerUnit()) != min(want.Limit.RequestsPerUnit, 1<<32-1) ||
				int(l.GetUnit()) != int(want.Limit.Unit) || l.GetUnitMultiplier().GetValue() != want.Limit.Multiplier ||
				(l.GetUnitMultiplier() != nil) != (want.Limit.Multiplier != 0) ||
				int64(got.GetLimitRemaining()) != min(want.Remaining, 1<<32-1) ||
				got.GetDurationUntilReset().GetSeconds() != want.ResetAfter.Seconds() {
				r.Fatalf("status %d: %v\nwant %+v", i, got, want)
			}
		}
	}
}

// A request that panics below is answered with an error, and counted; the service goes on.
func TestPanicIsContained(t *testing.T) {
	guard := recovery.New(nil)
	s := New(nil, Options{Guard: guard}) // no engine: the call panics
	b, err := proto.Marshal(&ratelimitv3.RateLimitRequest{Domain: "d"})
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 3; n++ {
		if _, err := s.answer(context.Background(), b); err == nil {
			t.Error("no error")
		}
		if guard.Caught() != n {
			t.Errorf("%d panics counted, want %d", guard.Caught(), n)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d descriptors", n), func(b *testing.B) {
			store := memory.New(memory.Options{})
			defer store.Close()
			e := engine.New(store, engine.Options{})
			p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(
				"domain: bench\ndescriptors:\n- key: user\n  rate_limit: { unit: hour, requests_per_unit: 4000000000 }\n")}}, policy.Options{})
			if err != nil {
				b.Fatal(err)
			}
			e.SetPolicy(p)
			s := New(e, Options{})
			m := &ratelimitv3.RateLimitRequest{Domain: "bench"}
			for i := range n {
				m.Descriptors = append(m.Descriptors, &commonv3.RateLimitDescriptor{
					Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "user", Value: fmt.Sprint("user-", i)}},
				})
			}
			in, err := proto.Marshal(m)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.answer(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
