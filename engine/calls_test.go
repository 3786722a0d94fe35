package engine_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// What is let through is counted, and how it ended, so that the difference shows what nobody has told of.
func TestCountsCalls(t *testing.T) {
	const id = "ration.request=r"
	spent := func(n uint64, more ...string) engine.Descriptor {
		return hits(n, append([]string{"user=ann", id, "ration.phase=record", "ration.meter=output_tokens"}, more...)...)
	}
	request := entries("user=ann", id)
	done, failed := entries("user=ann", id, "ration.phase=done"), entries("user=ann", id, "ration.phase=failed")
	type asks = []engine.Descriptor
	for name, c := range map[string]struct {
		calls []asks
		want  map[string]float64 // by stage
	}{
		"let through":                        {[]asks{{request}}, map[string]float64{"admitted": 1}},
		"by a reservation":                   {[]asks{{hits(9, "user=ann", id, "ration.phase=hold", "ration.meter=tokens")}}, map[string]float64{"admitted": 1}},
		"by a tier without limits of tokens": {[]asks{{entries("user=paula", id)}}, map[string]float64{"admitted": 1}},
		"only looked at":                     {[]asks{{hits(0, "user=ann")}}, nil},
		"refused":                            {[]asks{{hits(100, "user=ann", id)}}, nil},
		"again, which is the same one":       {[]asks{{request}, {request}}, map[string]float64{"admitted": 1}},
		"by limits of the company alone":     {[]asks{{entries("login=x")}}, map[string]float64{"admitted": 1}},
		"told of":                            {[]asks{{request}, {spent(5), done}}, map[string]float64{"admitted": 1, "reported": 1}},
		"told of again":                      {[]asks{{spent(5), done}, {spent(5), done}}, map[string]float64{"reported": 1}},
		"told of without an id":              {[]asks{{hits(5, "user=ann", "ration.phase=record", "ration.meter=tokens")}}, map[string]float64{"reported": 1}},
		"told to have used nothing":          {[]asks{{request}, {spent(0), done}}, map[string]float64{"admitted": 1, "reported_zero": 1}},
		"ended, and nothing told":            {[]asks{{request}, {done}}, map[string]float64{"admitted": 1, "unreported": 1}},
		"failed":                             {[]asks{{request}, {failed}}, map[string]float64{"admitted": 1, "failed": 1}},
		"failed, and nothing used":           {[]asks{{spent(0), failed}}, map[string]float64{"failed": 1}},
		"failed in the midst":                {[]asks{{spent(5), failed}}, map[string]float64{"reported": 1}},
		"told of as requests":                {[]asks{{entries("user=ann", "ration.phase=record")}}, nil},
		"given back":                         {[]asks{{engine.Descriptor{Entries: request.Entries, GiveBack: true}}}, nil},
	} {
		m := engine.NewMetrics()
		b := newModelBenchWith(t, engine.Options{Metrics: m})
		for _, call := range c.calls {
			b.ask(t, call...)
		}
		got := gather(t, m)
		for _, stage := range []string{"admitted", "reported", "reported_zero", "unreported", "failed"} {
			n, there := got["ration_calls_total domain=shop stage="+stage]
			if n != c.want[stage] || !there {
				t.Errorf("%s: %v calls are %s, want %v", name, n, stage, c.want[stage])
			}
		}
	}
}

// A report that comes when its reservation has lapsed is counted: such a call lasts for longer than reservations do.
func TestCountsLateReports(t *testing.T) {
	const late = "ration_late_reports_total domain=shop"
	m := engine.NewMetrics()
	b := newModelBenchWith(t, engine.Options{Metrics: m})
	for i, wait := range []limit.Micros{limit.Second, 400 * limit.Second} {
		name := []string{"ration.request=a", "ration.request=b"}[i]
		b.ask(t, hits(9, "user=ann", name, "ration.phase=hold", "ration.meter=tokens"))
		b.clock.Advance(wait)
		b.ask(t, hits(5, "user=ann", name, "ration.phase=record", "ration.meter=tokens"))
		if got := gather(t, m)[late]; got != float64(i) {
			t.Errorf("after %v: %v are late, want %d", wait, got, i)
		}
	}
}

// A report that waits for the store is counted when it comes; whether it is late is known when it lands.
func TestCountsReportsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, queues())
		b.sayWithout(t.Context(), entries("allow=x")) // no limit of tokens or money applies to it
		b.sayWithout(t.Context(), hits(9, "job=x", "ration.request=r", "ration.phase=hold", "ration.meter=tokens"))
		b.sayWithout(t.Context(), hits(9, "job=x", "ration.request=r", "ration.phase=hold", "ration.meter=tokens")) // a repeat
		b.store.set(store.ErrUnavailable, false)
		b.sayWithout(t.Context(), used(5, "r"))
		time.Sleep(10 * time.Minute)
		for metric, want := range map[string]float64{
			"ration_calls_total domain=shop stage=admitted": 1, "ration_calls_total domain=shop stage=reported": 1,
			"ration_late_reports_total domain=shop": 0,
		} {
			if got := b.metric(t, metric); got != want {
				t.Errorf("while it waits %s is %v, want %v", metric, got, want)
			}
		}
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		if got := b.metric(t, "ration_late_reports_total domain=shop"); got != 1 {
			t.Errorf("%v have landed late, want 1", got)
		}
	})
}

// A repeat of a report that waits is not counted again either, but another report of the same request is.
func TestCountsRepeatsThatWaitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, queues())
		b.store.set(store.ErrUnavailable, false)
		for _, n := range []uint64{5, 5, 5, 7} {
			b.sayWithout(t.Context(), used(n, "r"))
		}
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		if got := b.metric(t, "ration_calls_total domain=shop stage=reported"); got != 2 {
			t.Errorf("%v reports are counted, want 2", got)
		}
	})
}

// A report that cannot be read is usage that is not counted, which only ration knows: Envoy takes its answer for one.
func TestCountsInvalidReports(t *testing.T) {
	m := engine.NewMetrics()
	b := newModelBenchWith(t, engine.Options{Metrics: m})
	for _, d := range []engine.Descriptor{
		entries("user=ann", "ration.phase=record", "ration.meter=words"),
		entries("user=ann", "ration.phase=done"),
		entries("user=ann", "ration.meter=words"), // no report
	} {
		for _, domain := range []string{"shop", "elsewhere"} {
			err := b.Decide(context.Background(), &engine.Request{Domain: domain, Descriptors: []engine.Descriptor{d}}, new(engine.Decision))
			var invalid *engine.InvalidError
			if domain == "shop" && !errors.As(err, &invalid) {
				t.Errorf("%v: %v, want an InvalidError", d.Entries, err)
			}
		}
	}
	if got := gather(t, m)["ration_invalid_reports_total domain=shop"]; got != 2 {
		t.Errorf("%v are counted, want 2", got)
	}
	if _, there := gather(t, m)["ration_invalid_reports_total domain=elsewhere"]; there {
		t.Error("a domain that is named by a caller alone has a metric")
	}
}
