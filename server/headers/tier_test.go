package headers_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/headers"
)

// What a proxy routes by: the attributes of a tier that a field can hold, each once.
func TestTier(t *testing.T) {
	for _, c := range []struct {
		what string
		tier *policy.Tier
		want string
	}{
		{"there are no tiers", nil, ""},
		{"no attributes", &policy.Tier{Name: "free"}, "ration-tier: free"},
		{
			"scalars, in the order of their names",
			&policy.Tier{Name: "big spender", Attributes: map[string]any{
				"model": "claude-haiku-4-5", "max_output": 8192.0, "Share": 0.25, "huge": 1e15, "beta": false,
				"list": []any{1.0}, "map": map[string]any{}, "none": nil,
			}},
			"ration-tier: big spender|ration-share: 0.25|ration-beta: false|ration-huge: 1000000000000000|" +
				"ration-max-output: 8192|ration-model: claude-haiku-4-5",
		},
		{
			"twice the same field: the tier's own name, and the first attribute",
			&policy.Tier{Name: "free", Attributes: map[string]any{"tier": "pro", "max-output": 1.0, "max_output": 2.0}},
			"ration-tier: free|ration-max-output: 1",
		},
		{
			"what no field can hold",
			&policy.Tier{Name: "größer", Attributes: map[string]any{
				"a": "x\r\nset-cookie: y", "b": "é", "c": " x", "d": "", "e f": "x", "g:": "x", "ok": "x y",
			}},
			"ration-ok: x y",
		},
	} {
		var told []string
		for _, f := range headers.AppendTier(nil, &engine.Decision{Tier: c.tier}) {
			told = append(told, f.Name+": "+f.Value)
		}
		if got := strings.Join(told, "|"); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.what, got, c.want)
		}
	}
}
