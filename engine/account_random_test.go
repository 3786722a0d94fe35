package engine_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

const ledgerPolicy = `
domain: llm
prices:
  book: none
  models: { small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.00" } }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: requests, meter: requests, algorithm: calendar, limit: 60/year }
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 100_000/year }
      - { name: spend, meter: cost, algorithm: calendar, limit: $0.15/year }
`

// ledger is what the limits of one user have to say: what was spent, and what is held by calls that live.
type ledger struct {
	spent map[string]int64
	live  []reserved
	ended []reserved
}

type reserved struct {
	admission engine.Admission
	due       limit.Micros
	lapsed    bool
	held      map[string]int64
	stays     map[string]int64 // charged if it lapses
	used      price.Usage      // in the end, of what was settled
}

func newReserved(a *engine.Admission) reserved {
	prompt := a.Estimate
	prompt.Output = 0
	return reserved{admission: *a, due: a.Expires, held: amounts(a.Estimate), stays: amounts(prompt)}
}

// goOn notes what was used so far.
func (r *reserved) goOn(used price.Usage, due limit.Micros) {
	for name, amount := range amounts(used) {
		r.held[name], r.stays[name] = max(r.held[name], amount), max(r.stays[name], amount)
	}
	r.due = max(r.due, due)
}

var ledgerLimits = map[string]int64{"requests": 60, "tokens": 100_000, "spend": 150_000_000}

func amounts(u price.Usage) map[string]int64 {
	return map[string]int64{
		"requests": 1, "tokens": u.Input + u.CacheRead + u.CacheWrite + u.Output,
		"spend": (u.Input*1000 + u.CacheRead*500 + u.CacheWrite*1000 + u.Output*2000),
	}
}

func (l *ledger) spend(what map[string]int64, sign int64) {
	for name, amount := range what {
		l.spent[name] += sign * amount
	}
}

func (l *ledger) held(name string) (sum int64) {
	for i := range l.live {
		sum += l.live[i].held[name]
	}
	return sum
}

// lapse ends what is due: its request stays spent, and what it has sent, or told of.
func (l *ledger) lapse(now limit.Micros) {
	kept := l.live[:0]
	for _, r := range l.live {
		if r.due > now {
			kept = append(kept, r)
			continue
		}
		r.lapsed = true
		l.spend(r.stays, 1)
		l.ended = append(l.ended, r)
	}
	l.live = kept
}

// agree compares what a decision says of the limits with the ledger.
func (l *ledger) agree(t *rapid.T, what string, d *engine.Decision) {
	for i := range d.Limits {
		a := &d.Limits[i]
		name := a.Limit.Name
		if a.Status.Used != l.spent[name] || a.Status.Held != l.held(name) ||
			a.Status.Used+a.Status.Held+a.Status.Remaining != ledgerLimits[name] {
			t.Fatalf("%s: %s says used %d, held %d, remaining %d; want used %d, held %d of %d",
				what, name, a.Status.Used, a.Status.Held, a.Status.Remaining, l.spent[name], l.held(name), ledgerLimits[name])
		}
	}
}

// reported compares the rows of usage with the ledger: what was spent is in them, and what would stay of calls that live.
func (l *ledger) reported(t *rapid.T, b bench) {
	now := limit.At(time.Now())
	_, total, err := b.Usage(context.Background(), &engine.UsageQuery{
		Domain: "llm", Resolution: engine.Totals, From: now - 24*3600*limit.Second, To: now + 24*3600*limit.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int64{"requests": total.Requests, "tokens": total.Tokens, "spend": int64(total.Cost)}
	for name := range ledgerLimits {
		want := l.spent[name]
		for i := range l.live {
			want += l.live[i].stays[name]
		}
		if rows[name] != want {
			t.Fatalf("the rows of usage say %d %s, want %d", rows[name], name, want)
		}
	}
}

// Whatever is reserved, settled, released, recorded and left to lapse, in whatever order, twice or from another replica:
// limits say what was spent and what is held, to the nano-dollar, and a check says what a reservation would.
func TestAccountsAtRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		first := newPolicyBench(t, ledgerPolicy, engine.Options{})
		replicas := []bench{first, first.replica(t)}
		l := ledger{spent: map[string]int64{}}
		ctx := context.Background()
		tokens := rapid.Int64Range(0, 3000)
		usage := func() price.Usage {
			return price.Usage{Input: tokens.Draw(rt, "input"), CacheRead: tokens.Draw(rt, "read"), Output: tokens.Draw(rt, "output")}
		}
		either := func() bench { return replicas[rapid.IntRange(0, 1).Draw(rt, "replica")] }
		end := func(from *[]reserved) (r reserved) {
			i := rapid.IntRange(0, len(*from)-1).Draw(rt, "which")
			r = (*from)[i]
			*from = append((*from)[:i:i], (*from)[i+1:]...)
			return r
		}
		actions := map[string]func(){
			"reserve": func() {
				l.lapse(first.clock.Now())
				c := call("small", 0, 0)
				c.Usage = usage()
				c.Lasts = limit.Micros(rapid.Int64Range(1, 100).Draw(rt, "seconds")) * limit.Second
				fits := true
				for name, amount := range amounts(c.Usage) {
					fits = fits && l.spent[name]+l.held(name)+max(1, amount) <= ledgerLimits[name]
				}
				checked := either().check(t, c)
				l.agree(rt, "check", &checked.Decision)
				a := either().reserve(t, c)
				if a.Over == fits || checked.Over == fits {
					rt.Fatalf("fits %t, but checked %t and reserved %t", fits, !checked.Over, !a.Over)
				}
				if !a.Over {
					l.live = append(l.live, newReserved(a))
				}
				l.agree(rt, "reserve", &a.Decision)
				rt.Logf("reserved %+v: %t", c.Usage, !a.Over)
			},
			"settle": func() {
				if l.lapse(first.clock.Now()); len(l.live) == 0 {
					return
				}
				r := end(&l.live)
				r.used = usage()
				s := either().settle(t, &r.admission, r.used)
				l.spend(amounts(r.used), 1)
				l.ended = append(l.ended, r)
				l.agree(rt, "settle", &s.Decision)
			},
			"progress": func() {
				if l.lapse(first.clock.Now()); len(l.live) == 0 {
					return
				}
				r := &l.live[rapid.IntRange(0, len(l.live)-1).Draw(rt, "which")]
				p := engine.Progress{ID: r.admission.ID, Usage: usage()}
				p.Usage.Input++ // it says something of the prompt
				p.Lasts = limit.Micros(rapid.Int64Range(1, 100).Draw(rt, "seconds")) * limit.Second
				var g engine.Going
				if err := either().Progress(ctx, &p, &g); err != nil {
					rt.Fatal(err)
				}
				r.goOn(p.Usage, g.Now+p.Lasts)
				l.agree(rt, "progress", &g.Decision)
			},
			"settle late": func() {
				l.lapse(first.clock.Now())
				var late []reserved
				for _, r := range l.ended {
					if r.lapsed {
						late = append(late, r)
					}
				}
				if len(late) == 0 {
					return
				}
				r := end(&late)
				used := usage()
				s := either().settle(t, &r.admission, used)
				if s.State != engine.StateLapsed || s.Replayed {
					rt.Fatalf("state %d, replayed %t", s.State, s.Replayed)
				}
				for i := range l.ended {
					if e := &l.ended[i]; e.admission.ID == r.admission.ID {
						l.spend(e.stays, -1)
						e.used, e.lapsed = used, false
						l.spend(amounts(used), 1)
					}
				}
				l.agree(rt, "settle late", &s.Decision)
			},
			"settle again": func() {
				if l.lapse(first.clock.Now()); len(l.ended) == 0 {
					return
				}
				r := l.ended[rapid.IntRange(0, len(l.ended)-1).Draw(rt, "which")]
				if r.lapsed {
					return
				}
				s := either().settle(t, &r.admission, r.used)
				if !s.Replayed {
					rt.Fatal("settled twice")
				}
				l.agree(rt, "settle again", &s.Decision)
			},
			"release": func() {
				if l.lapse(first.clock.Now()); len(l.live) == 0 {
					return
				}
				r := end(&l.live)
				var s engine.Settlement
				if err := either().Release(ctx, r.admission.ID, &s); err != nil {
					rt.Fatal(err)
				}
				l.agree(rt, "release", &s.Decision)
			},
			"record": func() {
				l.lapse(first.clock.Now())
				r := engine.Record{Caller: call("small", 0, 0).Caller, Usage: usage(), Requests: 1}
				var s engine.Settlement
				if err := either().Record(ctx, &r, &s); err != nil {
					rt.Fatal(err)
				}
				l.spend(amounts(r.Usage), 1)
				l.agree(rt, "record", &s.Decision)
			},
			"wait": func() {
				first.clock.Advance(limit.Micros(rapid.Int64Range(0, 60).Draw(rt, "seconds")) * limit.Second)
			},
		}
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			actions[rapid.SampledFrom([]string{
				"reserve", "reserve", "reserve", "reserve", "progress", "progress", "settle", "settle late", "settle again", "release", "record", "wait", "wait",
			}).Draw(rt, "action")]()
		}
		l.lapse(first.clock.Now())
		l.reported(rt, first)
	})
}
