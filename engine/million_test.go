//go:build !race

// Under the race detector this takes most of a minute, and shows nothing that TestSpending does not.

package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
)

// A million calls that are settled for a hundred cached tokens each, at $0.0028 per million tokens, come to exactly
// $0.28: nothing is lost to rounding, nor to callers that settle at the same time. Some have held more before.
func TestAMillionSettles(t *testing.T) {
	const callers, calls, heldOf = 4, 250_000, 50
	b := newPolicyBench(t, strings.Replace(money, "$0.01/hour", "$1/hour", 1), engine.Options{})
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			var d engine.Decision
			decide := func(descriptors ...engine.Descriptor) {
				if err := b.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: descriptors}, &d); err != nil || d.Over {
					t.Error(d.Over, err)
				}
			}
			settle := spending(100, "cache_read", "record", "haiku")
			for call := range calls {
				if call%heldOf > 0 {
					decide(settle)
					continue
				}
				id := fmt.Sprintf("ration.request=%d-%d", caller, call)
				decide(spending(100, "input_tokens", "hold", "haiku", id), spending(100, "output_tokens", "hold", "haiku", id))
				decide(spending(100, "cache_read", "record", "haiku", id))
			}
		})
	}
	wg.Wait()
	for name, used := range b.spent(t) {
		if said := policy.Cost.Number(used); said != "$0.28" {
			t.Errorf("%s: %s are used, want exactly $0.28", name, said)
		}
	}
}
