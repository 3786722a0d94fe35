package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// Nor can who is served, by models and tags of which there are as many as callers make up: what was used is in the rows all
// the same, that of reservations too, which are begun under a name and settled under (others).
func TestRowsOfManyKinds(t *testing.T) {
	const named, made = 1_000, 1_300
	b := newPolicyBench(t, "domain: llm\nusage: { tags: [ team ] }\ndescriptors: [ { key: user, subject: true, limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000_000/day } ] } ]\n", engine.Options{})
	first := b.reserve(t, call("first", 7, 0))
	for i := range made {
		b.askIn(t, "llm", hits(1, "user=alice", "ration.model=model-"+fmt.Sprint(i), "ration.phase=record", "ration.meter=output_tokens"))
		b.settle(t, b.reserve(t, call("small", 1, 1, attribute("team", fmt.Sprint(i)))), price.Usage{Input: 1, Output: 1})
	}
	late := b.reserve(t, call("late", 5, 0))
	b.settle(t, late, price.Usage{Input: 3})
	b.settle(t, first, price.Usage{Input: 8})
	now := limit.At(time.Now())
	rows, total, err := b.Usage(context.Background(), &engine.UsageQuery{
		Domain: "llm", Resolution: engine.Totals, By: []string{"model", "team"}, From: now - 24*3600*limit.Second, To: now + 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]engine.UsageRow{}
	for _, r := range rows {
		of[strings.TrimSpace(strings.Join(r.Group, " "))] = r
	}
	if total.Usage.Input != made+8+3 || total.Usage.Output != 2*made || total.Requests != made+2 {
		t.Errorf("in all %+v", total)
	}
	// A day may end meanwhile: then more are named.
	if len(rows) > 2*named+2 || of["first"].Usage.Input != 8 || of["model-0"].Usage.Output != 1 || of["small 0"].Requests != 1 {
		t.Errorf("%d rows; %+v, %+v, %+v", len(rows), of["first"], of["model-0"], of["small 0"])
	}
	if len(rows) == named+1 && (of["(others)"].Requests < made-named || of["late"].Requests != 0) {
		t.Errorf("not told apart: %+v", of["(others)"])
	}
}

// Who is refused uses nothing, whatever models it names, and leaves the names of a day to those who are served.
func TestRefusedCallsAreNoKinds(t *testing.T) {
	const text = "domain: llm\ndescriptors:\n- key: user\n  subject: true\n  limits:\n" +
		"  - { name: calls, meter: requests, algorithm: fixed_window, limit: 1/day }\n" +
		"  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000_000/day }\n"
	for name, ask := range map[string]func(b bench, model string){
		"over Envoy's protocol": func(b bench, model string) {
			b.askIn(t, "llm", about(1, "user=mallory", "ration.model="+model))
		},
		"as a whole": func(b bench, model string) {
			refused := call(model, 1, 1)
			refused.Attributes = []policy.Entry{{Key: "user", Value: "mallory"}}
			b.reserve(t, refused)
		},
	} {
		b := newPolicyBench(t, text, engine.Options{})
		for i := range 1_100 {
			ask(b, "made-up-"+fmt.Sprint(i))
		}
		b.askIn(t, "llm", about(1, "user=alice", "ration.model=real"))
		now := limit.At(time.Now())
		rows, _, err := b.Usage(context.Background(), &engine.UsageQuery{
			Domain: "llm", Subject: policy.Entry{Key: "user", Value: "alice"}, Resolution: engine.Totals, By: []string{"model"}, From: now - 24*3600*limit.Second, To: now + 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 1 || rows[0].Group[0] != "real" {
			t.Errorf("%s: alice's call is in %+v, want in a row of its model", name, rows)
		}
	}
}
