package engine_test

import (
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
)

// What a request over Envoy's protocol holds is in the rows as its call goes: its prompt from the beginning, and what was
// used when that is told, whichever replica hears it, whichever model has served, and however often it is told.
func TestRowsOfDescriptors(t *testing.T) {
	const (
		begun   = "requests 1 refusals [0 0 0 0 0] input 100+0+0 output 0 cost 100000, 100 each; "
		nothing = "requests 1 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "
		settled = "requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 195000, 150 each; "
		dearer  = "requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 1910000, 150 each; "
		onlyIt  = "requests 0 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 1910000, 0 each; "
	)
	of := func(n uint64, phase, meter, model string) engine.Descriptor {
		return about(n, "user=alice", "ration.model="+model, "ration.phase="+phase, "ration.meter="+meter)
	}
	report := func(model string) []engine.Descriptor {
		return []engine.Descriptor{
			of(90, "record", "input_tokens", model), of(10, "record", "cache_read", model), of(50, "record", "output_tokens", model),
		}
	}
	end := func(phase string) []engine.Descriptor {
		return []engine.Descriptor{about(1, "user=alice", "ration.model=small", "ration.phase="+phase)}
	}
	for name, c := range map[string]struct {
		waits          limit.Micros
		ends           []engine.Descriptor
		inAll, byModel string
	}{
		"under way":                      {0, nil, begun, "[small] " + begun},
		"ends without a word":            {0, end("done"), begun, "[small] " + begun},
		"nobody ends it":                 {400 * limit.Second, nil, begun, "[small] " + begun},
		"the upstream has failed":        {0, end("failed"), nothing, "[small] " + nothing},
		"told of":                        {0, report("small"), settled, "[small] " + settled},
		"told of late":                   {400 * limit.Second, report("small"), settled, "[small] " + settled},
		"another model has served":       {0, report("large"), dearer, "[large] " + onlyIt + "[small] " + nothing},
		"another one, and told too late": {400 * limit.Second, report("large"), dearer, "[large] " + onlyIt + "[small] " + nothing},
	} {
		for _, elsewhere := range []bool{false, true} {
			b := newAccounts(t)
			b.askIn(t, "llm", about(1, "user=alice", "ration.model=small"), of(100, "hold", "input_tokens", "small"), of(200, "hold", "output_tokens", "small"))
			b.clock.Advance(c.waits)
			teller := b
			if elsewhere {
				teller = b.replica(t)
			}
			for range 2 {
				if c.ends != nil {
					teller.askIn(t, "llm", c.ends...)
				}
			}
			expect(t, name, b.used(t, "alice", "model"), c.byModel+"[] "+c.inAll)
			expect(t, name+", of all", b.used(t, ""), "[] "+c.inAll+"[] "+c.inAll)
		}
	}
}
