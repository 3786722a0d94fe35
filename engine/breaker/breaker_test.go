package breaker_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/engine/breaker"
)

const ms = time.Millisecond

var options = breaker.Options{Failures: 3, Patience: 100 * ms, Pause: 250 * ms, Notice: 5 * ms}

// Walks of one breaker: what happens at which millisecond, and the state after it.
func TestWalks(t *testing.T) {
	for name, walk := range map[string]string{
		"it opens when calls have failed in a row, for long enough": `
			0 failed doubtful
			50 failed doubtful
			60 failed doubtful, as the row is short
			100 failed open`,
		"many failures at one instant are one lost connection": `
			0 failed doubtful
			0 failed doubtful
			0 failed doubtful
			0 failed doubtful
			1 answered closed`,
		"two failures are no row, however far apart": `
			0 failed doubtful
			5000 failed doubtful
			5001 failed open`,
		"an answer ends the row": `
			0 failed doubtful
			90 failed doubtful
			95 answered closed
			100 failed doubtful
			190 failed doubtful
			200 failed open`,
		"while it is open one call tries, after each pause": `
			0 failed doubtful
			50 failed doubtful
			100 failed open
			101 ask refused
			349 ask refused
			350 ask tries
			351 ask refused
			900 ask refused
			1000 tried-failed open
			1249 ask refused
			1250 ask tries
			1251 answered closed
			1252 ask granted`,
		"a late answer proves as much as that of the call that tries": `
			0 failed doubtful
			50 failed doubtful
			100 failed open
			101 answered closed`,
		"a call that its caller ended says nothing, but is reason for a probe": `
			0 gaveup:4 closed
			1 gaveup:5 doubtful probe
			2 gaveup:9000 doubtful, as a probe is under way
			3 answered closed
			4 probe-failed doubtful, as a call was answered meanwhile
			200 failed doubtful, as it counts once
			201 failed open`,
		"callers with short deadlines never open it alone": `
			0 gaveup:20 doubtful probe
			20 gaveup:20 doubtful
			30 probe-answered closed
			40 gaveup:20 closed
			1000 gaveup:20 doubtful probe
			1030 probe-answered closed`,
		"a probe that failed opens it, where nobody waits for long enough to see it himself": `
			0 gaveup:20 doubtful probe
			20 gaveup:20 doubtful
			1000 probe-failed open`,
		"a probe that fails at once has to be confirmed": `
			0 gaveup:20 doubtful probe
			1 probe-failed doubtful
			249 gaveup:20 doubtful
			250 gaveup:20 doubtful probe
			251 probe-failed open`,
		"a caller that leaves does not spend the trial": `
			0 failed doubtful
			50 failed doubtful
			100 failed open
			350 ask tries
			351 tried-gaveup:1 open
			351 ask tries
			400 tried-gaveup:49 open probe
			401 ask refused
			430 probe-answered closed`,
		"a call that began before counts only while it is not open": `
			0 failed doubtful
			50 failed doubtful
			100 failed open
			300 failed open
			350 ask tries
			360 failed trying
			361 ask refused`,
	} {
		t.Run(name, func(t *testing.T) {
			b := breaker.New(options)
			var trial breaker.Permit
			for line := range strings.Lines(walk) {
				line = strings.TrimSpace(line)
				if line == "" {
					continue
				}
				var at, waited int
				var what string
				if _, err := fmt.Sscan(line, &at, &what); err != nil {
					t.Fatal(err)
				}
				if name, n, ok := strings.Cut(what, ":"); ok {
					what = name
					_, _ = fmt.Sscan(n, &waited)
				}
				now, probe, got := time.Duration(at)*ms, false, ""
				switch what {
				case "failed":
					b.Failed(breaker.Granted, now)
				case "tried-failed":
					b.Failed(trial, now)
				case "answered":
					b.Answered()
				case "gaveup":
					_, probe = b.GaveUp(breaker.Granted, time.Duration(waited)*ms, now)
				case "tried-gaveup":
					_, probe = b.GaveUp(trial, time.Duration(waited)*ms, now)
				case "probe-failed", "probe-answered":
					b.Probed(what == "probe-answered", now)
				case "ask":
					switch p := b.Ask(now); p {
					case breaker.Refused:
						got = "refused"
					case breaker.Granted:
						got = "granted"
					default:
						got, trial = "tries", p
					}
				default:
					t.Fatalf("no such event: %s", line)
				}
				if got == "" {
					got = b.State().String()
				}
				if probe {
					got += " probe"
				}
				want, _, _ := strings.Cut(line, ",")
				if _, want, _ = strings.Cut(want, " "); !strings.HasSuffix(want, " "+got) || strings.Count(want, " ") != strings.Count(got, " ")+1 {
					t.Fatalf("%s: got %s", line, got)
				}
			}
		})
	}
}

// What holds whatever happens, in any order: reports that come late, twice as many callers as answers,
// clocks that stand still.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := breaker.New(options)
		var now, silentSince time.Duration // since when nobody was answered
		failures := 0                      // of calls or probes, since then
		var underWay []breaker.Permit
		probing := false
		opened := func(c breaker.Change) {
			if c.From < breaker.Open && c.To >= breaker.Open && (failures == 0 || now-silentSince < options.Patience) {
				r.Fatalf("it opened after %d failures in %v", failures, now-silentSince)
			}
		}
		take := func() breaker.Permit {
			if len(underWay) == 0 {
				r.Skip()
			}
			i := rapid.IntRange(0, len(underWay)-1).Draw(r, "call")
			p := underWay[i]
			underWay = append(underWay[:i], underWay[i+1:]...)
			return p
		}
		answered := func() { silentSince, failures = now, 0 }
		r.Repeat(map[string]func(*rapid.T){
			"wait": func(r *rapid.T) { now += time.Duration(rapid.Int64Range(0, 400).Draw(r, "ms")) * ms },
			"ask": func(r *rapid.T) {
				before := b.State()
				p := b.Ask(now)
				if refused := p == breaker.Refused; refused && before < breaker.Open {
					r.Fatalf("refused while %v", before)
				}
				if p != breaker.Refused {
					underWay = append(underWay, p)
				}
			},
			"answered": func(*rapid.T) {
				take()
				b.Answered()
				answered()
				if b.State() != breaker.Closed {
					r.Fatalf("%v after an answer", b.State())
				}
			},
			"failed": func(*rapid.T) {
				p := take()
				failures++
				opened(b.Failed(p, now))
			},
			"gave up": func(r *rapid.T) {
				before := b.State()
				c, probe := b.GaveUp(take(), time.Duration(rapid.Int64Range(0, 20).Draw(r, "waited"))*ms, now)
				if before < breaker.Open && b.State() >= breaker.Open {
					r.Fatalf("a caller that ended its call opened it: %+v", c)
				}
				if probe && probing {
					r.Fatal("two probes at a time")
				}
				probing = probing || probe
			},
			"probed": func(r *rapid.T) {
				if !probing {
					r.Skip()
				}
				probing = false
				if rapid.Bool().Draw(r, "answered") {
					b.Probed(true, now)
					answered()
					return
				}
				failures++
				opened(b.Probed(false, now))
			},
			"": func(r *rapid.T) {
				if b.State() != breaker.Trying {
					return
				}
				tries := 0
				for _, p := range underWay {
					if p.Tries() {
						tries++
					}
				}
				if tries == 0 {
					r.Fatal("it waits for a trial that nobody makes: it would never close again")
				}
			},
		})
		// Whatever has happened: once the service answers, it closes.
		now += options.Pause
		for _, p := range underWay {
			b.GaveUp(p, 0, now)
		}
		if p := b.Ask(now); p == breaker.Refused {
			r.Fatalf("%v, and nobody may try", b.State())
		}
		if b.Answered(); b.State() != breaker.Closed {
			r.Fatalf("%v after an answer", b.State())
		}
	})
}

// Among any number of callers at one instant one tries.
func TestOneTrialAtATime(t *testing.T) {
	b := breaker.New(breaker.Options{Failures: 1, Patience: 1})
	b.Failed(breaker.Granted, 0)
	b.Failed(breaker.Granted, 1)
	if b.State() != breaker.Open {
		t.Fatal(b.State())
	}
	var trials atomic.Int64
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 1000 {
				if b.Ask(time.Second).Tries() {
					trials.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if n := trials.Load(); n != 1 {
		t.Errorf("%d calls try, want 1", n)
	}
}

func BenchmarkClosed(b *testing.B) {
	br := breaker.New(breaker.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			br.Ask(0)
			br.Answered()
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	br := breaker.New(breaker.Options{Failures: 1, Patience: 1})
	br.Failed(breaker.Granted, 0)
	br.Failed(breaker.Granted, 1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			br.Ask(2)
		}
	})
}
