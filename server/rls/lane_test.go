package rls

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// Who waits in a lane by /json has an answer, however long the server lets others take.
func TestLaneOverJSON(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: shop
descriptors: [ { key: user, limits: [ { name: pace, algorithm: fixed_window, limit: 1_000/day } ] } ]
lanes: [ { name: one, max_concurrent: 1, max_wait: 100ms } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	counters := memory.New(memory.Options{})
	defer counters.Close()
	e := engine.New(counters, engine.Options{})
	defer e.Close()
	e.SetPolicy(p)
	s := httptest.NewUnstartedServer(New(e, Options{}))
	s.Config.WriteTimeout = 50 * time.Millisecond
	s.Start()
	defer s.Close()
	for i, want := range []string{"200 OK", "429 Too Many Requests"} {
		id := strconv.Itoa(i)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader(`{"domain": "shop", "descriptors": [ { "entries": [
			{"key": "user", "value": "ann"}, {"key": "ration.lane", "value": "one"}, {"key": "ration.request", "value": "`+id+`"} ] } ]}`))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.Client().Do(r)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.Status != want {
			t.Errorf("%s: %s %s %v, want %s", id, answer.Status, text, err, want)
		}
	}
}
