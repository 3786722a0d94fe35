//go:build !race

// Under the race detector sync.Pool forgets on purpose, so allocations are counted without it.

package engine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
)

func TestDecideDoesNotAllocate(t *testing.T) {
	for name, c := range map[string]struct {
		bench       bench
		descriptors []engine.Descriptor
	}{
		"rules": {newBench(t, engine.Options{}), []engine.Descriptor{entries("user=alice"), entries("region=eu"), entries("tenant=a")}},
		"rules, guarded": {
			newBench(t, engine.Options{StoreWait: time.Second}),
			[]engine.Descriptor{entries("user=alice"), entries("region=eu"), entries("tenant=a")},
		},
		"limits": {newModelBench(t), []engine.Descriptor{
			entries("user=paula", "ration.tier=pro"), entries("org=acme"), entries("user=paula", "ration.model=haiku"),
			hits(3, "user=paula", "ration.phase=record", "ration.meter=output_tokens"),
		}},
		"money": {newPolicyBench(t, money, engine.Options{}), []engine.Descriptor{
			entries("user=ann", "ration.model=haiku"), spending(3, "output_tokens", "record", "haiku"), spending(3, "input_tokens", "record", "tiny"),
		}},
		"thresholds": {newPolicyBench(t, strings.Replace(warned, "domain: llm", "domain: shop", 1), engine.Options{}), []engine.Descriptor{
			entries("user=ann"), hits(3, "user=ann", "ration.phase=record", "ration.meter=output_tokens"),
		}},
		"usage without a price": {newPolicyBench(t, money, engine.Options{}), []engine.Descriptor{
			spending(3, "output_tokens", "record", "haikoo"),
		}},
	} {
		request := &engine.Request{Domain: "shop", Descriptors: c.descriptors}
		var d engine.Decision
		ctx := context.Background()
		if allocs := testing.AllocsPerRun(1000, func() {
			if err := c.bench.Decide(ctx, request, &d); err != nil {
				t.Fatal(err)
			}
		}); allocs > 0 {
			t.Errorf("%s: %v allocations per decision, want 0", name, allocs)
		}
	}
}
