package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/subject"
)

func TestExplain(t *testing.T) {
	b, _ := knowing(t, "subjects: { carol: { tier: pro } }\n", subject.Subject{Name: "bob", Tier: "pro"})
	var x engine.Explanation
	if err := b.Explain(context.Background(), call("large", 100, 600), &x); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range x.Reasons {
		path := "llm.user" // the plain rule's
		if r.Applied != nil {
			path = r.Applied.Limit.Path
		}
		lines = append(lines, fmt.Sprintf("%s %v", path, r.Because))
		if !strings.HasPrefix(r.Place, "llm.yaml:") || len(r.Meaning) == 0 {
			t.Errorf("%s stands at %q and means %q", path, r.Place, r.Meaning)
		}
	}
	expect(t, "why", strings.Join(lines, "\n"), `llm.user.model_large.large [user=alice model=large]
llm.user.requests [user=alice]
llm.user.tokens [user=alice]
llm.company []
llm.upstreams.other.otpm []
llm.user [user=alice]
llm.user.in-flight [user=alice]`)
	if !x.Over || x.Verdict() != engine.Impossible {
		t.Errorf("%v: 600 of 500 tokens", x.Verdict())
	}
	for _, tc := range []struct {
		call *engine.Call
		want engine.TierSource
	}{
		{call("", 0, 0), engine.TierByDefault},
		{call("", 0, 0, asPro), engine.TierByCaller},
		{call("", 0, 0, named("bob")), engine.TierByDirectory},
		{call("", 0, 0, named("carol")), engine.TierByPolicy},
	} {
		if err := b.Explain(context.Background(), tc.call, &x); err != nil || x.TierFrom != tc.want {
			t.Errorf("the tier is from %s, want %s (%v)", x.TierFrom, tc.want, err)
		}
	}
}

func named(user string) func(*engine.Call) {
	return func(c *engine.Call) { c.Attributes[0].Value = user }
}
