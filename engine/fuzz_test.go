package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// FuzzDecide asks whatever comes: descriptors apart by ';', entries by ',', each KEY=VALUE, with hits
// behind a '#', negative ones behind '##'. Nothing panics, what cannot be read is said to be so, and
// every limit that was asked stays whole.
func FuzzDecide(f *testing.F) {
	for _, seed := range []string{
		"user=ann", "user=ann;user=ann,model=opus-4", "user=ann,ration.request=r1;user=ann,ration.request=r1,ration.phase=hold,ration.meter=tokens#500",
		"user=ann,ration.phase=record,ration.meter=output_tokens,ration.request=r1#90", "user=ann,ration.phase=done,ration.request=r1", "user=ann,ration.phase=failed,ration.request=r1",
		"user=paula,ration.tier=pro,ration.model=haiku#3;org=acme##2", "ration.meter=tokens#9007199254740991", "ration.=;=", "login=x#4",
		"user=ann,ration.api=openai#9", "user=ann,ration.api=anthropic,ration.request=r1;ration.api=openai",
	} {
		f.Add(seed, uint32(0))
	}
	f.Fuzz(func(t *testing.T, text string, all uint32) {
		b := newModelBench(t)
		request := &engine.Request{Domain: "shop", Hits: all}
		for one := range strings.SplitSeq(text, ";") {
			request.Descriptors = append(request.Descriptors, readDescriptor(one))
		}
		var d engine.Decision
		for range 3 { // the first time, and twice again
			err := b.Decide(context.Background(), request, &d)
			var invalid *engine.InvalidError
			if err != nil {
				if !errors.As(err, &invalid) || invalid.Field == "" || invalid.Reason == "" {
					t.Fatalf("%q: %v", text, err)
				}
				return
			}
			if d.Over && d.Message() == "" || !d.Over && d.Body() != nil {
				t.Errorf("%q: over %v, says %q", text, d.Over, d.Message())
			}
			for i := range d.Limits {
				a := &d.Limits[i]
				if s := a.Status; s.Used+s.Held+s.Remaining != a.Quantity.Spec.Ceiling() {
					t.Errorf("%q: %s: %d used, %d held, %d left of %d", text, a.Limit.Path, s.Used, s.Held, s.Remaining, a.Quantity.Spec.Ceiling())
				}
			}
			b.clock.Advance(limit.Second)
		}
	})
}

func readDescriptor(text string) engine.Descriptor {
	var d engine.Descriptor
	text, hits, hasHits := strings.Cut(text, "#")
	if d.HasHits = hasHits; hasHits {
		hits, d.GiveBack = strings.CutPrefix(hits, "#")
		for _, digit := range hits {
			d.Hits = d.Hits*10 + uint64(digit-'0')
		}
	}
	for entry := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(entry, "=")
		d.Entries = append(d.Entries, policy.Entry{Key: key, Value: value})
	}
	return d
}
