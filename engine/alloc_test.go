//go:build !race

// Under the race detector sync.Pool forgets on purpose, so allocations are counted without it.

package engine_test

import (
	"context"
	"testing"

	"github.com/rationhq/ration/engine"
)

func TestDecideDoesNotAllocate(t *testing.T) {
	b := newBench(t, engine.Options{})
	request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("user=alice"), entries("region=eu"), entries("tenant=a")}}
	var d engine.Decision
	ctx := context.Background()
	if allocs := testing.AllocsPerRun(1000, func() {
		if err := b.Decide(ctx, request, &d); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations per decision, want 0", allocs)
	}
}
