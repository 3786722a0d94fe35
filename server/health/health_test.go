package health_test

import (
	"errors"
	"testing"

	"github.com/rationhq/ration/server/health"
)

// Who is asked: a server that can answer; and rather one that decides by its store.
func TestFitness(t *testing.T) {
	down := errors.New("down")
	type event func(*health.State)
	loaded := func(alone bool) event { return func(s *health.State) { s.PolicyLoaded(alone) } }
	store := func(err error) event { return func(s *health.State) { s.SetStore(err) } }
	drain := func(s *health.State) { s.Drain() }
	for name, c := range map[string]struct {
		events []event
		want   health.Fitness
	}{
		"it has begun": {nil, health.Fitness{}},
		"a policy, and nobody has asked the store":   {[]event{loaded(true)}, health.Fitness{}},
		"a store, and no policy":                     {[]event{store(nil)}, health.Fitness{}},
		"both":                                       {[]event{loaded(false), store(nil)}, health.Fitness{Serving: true, Exact: true}},
		"the store goes":                             {[]event{loaded(false), store(nil), store(down)}, health.Fitness{}},
		"the store goes, and the policy knows":       {[]event{loaded(true), store(nil), store(down)}, health.Fitness{Serving: true}},
		"the policy knows, the store was never here": {[]event{loaded(true), store(down)}, health.Fitness{}},
		"a newer policy knows":                       {[]event{loaded(false), store(nil), store(down), loaded(true)}, health.Fitness{Serving: true}},
		"a newer policy does not":                    {[]event{loaded(true), store(nil), store(down), loaded(false)}, health.Fitness{}},
		"the store is back":                          {[]event{loaded(true), store(nil), store(down), store(nil)}, health.Fitness{Serving: true, Exact: true}},
		"it is about to stop":                        {[]event{loaded(true), store(nil), drain}, health.Fitness{}},
		"it is about to stop without the store":      {[]event{loaded(true), store(nil), store(down), drain}, health.Fitness{}},
	} {
		t.Run(name, func(t *testing.T) {
			var s health.State
			var told []health.Fitness
			s.OnChange(func(f health.Fitness) { told = append(told, f) })
			for _, e := range c.events {
				e(&s)
			}
			if last := told[len(told)-1]; last != c.want || s.Serving() != c.want.Serving {
				t.Errorf("%+v and %v, want %+v", last, s.Serving(), c.want)
			}
			for i := 1; i < len(told); i++ {
				if told[i] == told[i-1] {
					t.Errorf("told twice of %+v", told[i])
				}
			}
		})
	}
}
