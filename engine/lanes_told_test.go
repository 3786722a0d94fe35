package engine_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// hearing notes which lines are told of room.
type hearing struct {
	*memory.Store
	mu   sync.Mutex
	told []string
}

func (h *hearing) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if step.Do == lane.Free {
		h.mu.Lock()
		h.told = append(h.told, string(name[strings.LastIndexByte(string(name), '|')+1:]))
		h.mu.Unlock()
	}
	return h.Store.Line(ctx, name, spec, step)
}

// The end of a call that was made is told to lanes to which it gives something back; one that was not made gives back its
// request too, for which a drain has room again.
func TestLanesAreToldOfWhatTheyWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hearing{Store: memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(time.Now()) }})}
		defer s.Close()
		e := engine.New(s, engine.Options{})
		defer e.Close()
		p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(laned + "  - { name: drained, drain: 5/second }\n")}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.SetPolicy(p)
		for _, c := range []struct {
			name string
			end  func(context.Context, engine.ReservationID, *engine.Settlement) error
			want []string
		}{
			{"settle", func(ctx context.Context, id engine.ReservationID, out *engine.Settlement) error {
				return e.Settle(ctx, &engine.Report{ID: id}, out)
			}, []string{"provider"}},
			{"release", e.Release, []string{"drained", "provider"}},
		} {
			var a engine.Admission
			if err := e.Acquire(t.Context(), callOf("ann", "premium", 1), &engine.Place{Lane: "drained"}, &a); err != nil || a.Over {
				t.Fatal(err, a.Message())
			}
			var out engine.Settlement
			if err := c.end(t.Context(), a.ID, &out); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			s.mu.Lock()
			slices.Sort(s.told)
			if !slices.Equal(s.told, c.want) {
				t.Errorf("%s: told are %q, want %q", c.name, s.told, c.want)
			}
			s.told = nil
			s.mu.Unlock()
		}
	})
}
