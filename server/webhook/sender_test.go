package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// eventually calls ok until it is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// shelf is an outbox of which a test knows everything.
type shelf struct {
	mu        sync.Mutex
	all       []engine.Undelivered
	delivered []string
	refuses   int // so often nobody hears that something was delivered
	elected   [16]byte
	until     time.Time
	notices   []chan struct{}
}

func (s *shelf) put(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.all = append(s.all, engine.Undelivered{Event: events.Event{
			ID: id, Kind: events.Threshold, At: limit.At(time.Now()), Domain: "llm", Path: []policy.Entry{{Key: "user", Value: "alice"}},
			Limit: "llm.user.tokens", Percent: 80, Used: 802, Capacity: 1000, Message: "You have used 80 %.",
		}})
	}
	for _, c := range s.notices {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (s *shelf) Undelivered(context.Context) ([]engine.Undelivered, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), nil
}

func (s *shelf) Delivered(_ context.Context, delivered ...engine.Undelivered) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses--; s.refuses >= 0 {
		return errors.New("the store is away")
	}
	for i := range delivered {
		s.delivered = append(s.delivered, delivered[i].ID)
		s.all = slices.DeleteFunc(s.all, func(u engine.Undelivered) bool { return u.ID == delivered[i].ID })
	}
	return nil
}

func (s *shelf) Deliver(_ context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.elected != who && time.Now().Before(s.until) {
		return false, nil
	}
	s.elected, s.until = who, time.Now().Add(lasts.Duration())
	return true, nil
}

func (s *shelf) Notices(context.Context) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{}, 1)
	s.notices = append(s.notices, c)
	return c
}

func (s *shelf) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.delivered)
}

// arrival is a request that a receiver has had.
type arrival struct {
	id, path string
	header   http.Header
	body     []byte
}

// receiver answers what its test says, and remembers what came.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	arrived []arrival
}

// receive runs a receiver. tries is how often the event has come, this time included.
func receive(t *testing.T, answer func(w http.ResponseWriter, id string, tries int)) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		id := request.Header.Get("webhook-id")
		r.mu.Lock()
		r.arrived = append(r.arrived, arrival{id, request.URL.Path, request.Header.Clone(), body})
		tries := 0
		for _, a := range r.arrived {
			if a.id == id {
				tries++
			}
		}
		r.mu.Unlock()
		answer(w, id, tries)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrived)
}

// send runs a sender to a receiver until the test ends, or stop is called.
func send(t *testing.T, from Source, to string, change ...func(*Options)) (s *Sender, stop func()) {
	t.Helper()
	u, err := ParseURL(to)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := ParseSecrets(secretOf(32))
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{URL: u, Secrets: secrets, FirstPause: time.Millisecond}
	for _, c := range change {
		c(&opts)
	}
	s = New(from, opts)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-ended }) }
	t.Cleanup(stop)
	return s, stop
}

// An event arrives as a Standard Webhook: the official library takes its signature, each of those of several secrets, and
// the body says what WatchEvents says.
func TestArrives(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, _ string, _ int) { w.WriteHeader(http.StatusNoContent) })
	s := &shelf{}
	s.put("ab01")
	second := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sender, _ := send(t, s, r.URL+"/hook", func(o *Options) {
		o.Secrets, _ = ParseSecrets(secretOf(32) + " " + second)
	})
	eventually(t, "it is delivered", func() bool { return len(s.done()) == 1 })
	got := r.all()
	if len(got) != 1 || got[0].id != "ab01" || got[0].path != "/hook" || got[0].header.Get("Content-Type") != "application/json" {
		t.Fatalf("arrived: %+v", got)
	}
	for _, secret := range []string{secretOf(32), second} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got[0].body, got[0].header); err != nil {
			t.Errorf("the official library: %v", err)
		}
		if verifier.Verify(bytes.Replace(got[0].body, []byte("alice"), []byte("mallo"), 1), got[0].header) == nil {
			t.Error("another body has the same signature")
		}
	}
	var body struct {
		Type      string
		Timestamp time.Time
		Data      struct {
			ID, Kind, Domain, Subject, Limit, Message, Used, Capacity string
			ThresholdPercent                                          int
		}
	}
	if err := json.Unmarshal(got[0].body, &body); err != nil {
		t.Fatal(err)
	}
	if d := body.Data; body.Type != "ration.threshold" || time.Since(body.Timestamp).Abs() > time.Minute || d.ID != "ab01" || d.Kind != "threshold" ||
		d.Domain != "llm" || d.Subject != "user=alice" || d.Limit != "llm.user.tokens" || d.ThresholdPercent != 80 || d.Used != "802" || d.Capacity != "1000" {
		t.Errorf("the body: %s", got[0].body)
	}
	if n := testutil.ToFloat64(sender.delivered); n != 1 {
		t.Errorf("%v deliveries counted", n)
	}
}

// What is not taken comes again, with the same id and body, until it is; what is stuck holds nothing else up.
func TestTriesAgain(t *testing.T) {
	release := make(chan struct{})
	r := receive(t, func(w http.ResponseWriter, id string, tries int) {
		switch {
		case id == "57":
			<-release
		case tries < 4:
			w.WriteHeader([]int{500, 404, 302, 429}[tries])
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
		}
	})
	t.Cleanup(func() { close(release) }) // before the receiver is closed
	s := &shelf{}
	s.put("57", "01", "02", "03")
	sender, _ := send(t, s, r.URL)
	eventually(t, "the others are delivered", func() bool { return len(s.done()) == 3 })
	if slices.Contains(s.done(), "57") {
		t.Error("what nobody has answered is delivered")
	}
	bodies := map[string]string{}
	for _, a := range r.all() {
		if before, ok := bodies[a.id]; ok && before != string(a.body) {
			t.Errorf("%s: another body than before", a.id)
		}
		bodies[a.id] = string(a.body)
	}
	if n := testutil.ToFloat64(sender.failed); n != 9 {
		t.Errorf("%v failures counted, want 3 of each", n)
	}
	eventually(t, "one waits", func() bool { return testutil.ToFloat64(sender.waiting) == 1 })
}

// A redirect is not followed: whoever is at its end is not whom the operator has named.
func TestRedirectIsNotFollowed(t *testing.T) {
	other := receive(t, func(http.ResponseWriter, string, int) {})
	r := receive(t, func(w http.ResponseWriter, _ string, tries int) {
		if tries < 3 {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	s := &shelf{}
	s.put("aa")
	send(t, s, r.URL)
	eventually(t, "it is delivered", func() bool { return len(s.done()) == 1 })
	if got := other.all(); len(got) != 0 {
		t.Errorf("the event went to %d others", len(got))
	}
}

// An event is given up that the receiver does not want, or that is too old; not before it was tried.
func TestGivenUp(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, id string, _ int) {
		if id == "60" {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	s := &shelf{}
	s.put("60", "0d")
	s.all[1].At -= 25 * 3600 * limit.Second
	var log bytes.Buffer
	sender, stop := send(t, s, r.URL+"/very-secret", func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	eventually(t, "both are given up", func() bool { return len(s.done()) == 2 })
	stop()
	if got := r.all(); len(got) != 2 {
		t.Errorf("%d tries, want one of each", len(got))
	}
	if n := testutil.ToFloat64(sender.abandoned); n != 2 {
		t.Errorf("%v counted as given up", n)
	}
	if text := log.String(); strings.Count(text, "given up") != 2 || strings.Contains(text, "very-secret") || strings.Contains(text, "whsec") {
		t.Errorf("the log:\n%s", text)
	}
}

// Where the store does not hear that an event was delivered, it is told again, and the event is not sent again.
func TestStoreDoesNotHear(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, string, int) {})
	s := &shelf{refuses: 3}
	s.put("aa")
	send(t, s, r.URL)
	eventually(t, "it is delivered", func() bool { return len(s.done()) == 1 })
	if got := r.all(); len(got) != 1 {
		t.Errorf("it was sent %d times", len(got))
	}
}

// Of two processes one sends; when it ends the other does, at once.
func TestOneSends(t *testing.T) {
	r := receive(t, func(http.ResponseWriter, string, int) {})
	s := &shelf{}
	short := func(o *Options) { o.Lease, o.Timeout = 300*time.Millisecond, 100*time.Millisecond }
	first, stopFirst := send(t, s, r.URL, short)
	s.put("01")
	eventually(t, "the first sends", func() bool { return len(s.done()) == 1 })
	second, _ := send(t, s, r.URL, short)
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("%04x", i))
	}
	s.put(want...)
	eventually(t, "all are delivered", func() bool { return len(s.done()) == 51 })
	if a, b := testutil.ToFloat64(first.delivered), testutil.ToFloat64(second.delivered); a != 51 || b != 0 {
		t.Errorf("the first has sent %v, the second %v", a, b)
	}
	stopFirst()
	s.put("ffff")
	eventually(t, "the second sends", func() bool { return testutil.ToFloat64(second.delivered) == 1 })
	if got := r.all(); len(got) != 52 {
		t.Errorf("%d requests, want 52", len(got))
	}
}

// heavy is an outbox that takes its time to be read, and has something new all the while.
type heavy struct {
	shelf
	asked []time.Time
}

const heavyRead = 10 * time.Millisecond

func (h *heavy) Undelivered(ctx context.Context) ([]engine.Undelivered, error) {
	h.mu.Lock()
	h.asked = append(h.asked, time.Now())
	h.mu.Unlock()
	time.Sleep(heavyRead)
	return h.shelf.Undelivered(ctx)
}

func (h *heavy) looks() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

// What waits for a receiver is read again and again, while new events come: a store that has much of it is left in peace
// for most of the time.
func TestRests(t *testing.T) {
	h := &heavy{}
	send(t, h, "http://127.0.0.1:1")
	eventually(t, "it is read six times", func() bool { h.put(); return len(h.looks()) >= 6 })
	looks := h.looks()
	for i := range looks[1:] {
		if pause := looks[i+1].Sub(looks[i]); pause < restTimes*heavyRead {
			t.Errorf("read %d comes %v after the one before, which took %v", i+1, pause, heavyRead)
		}
	}
}

// A receiver may ask to be left alone, but not for ever; pauses grow, and spread.
func TestPauses(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "999999999": longestAfter,
		"Sun, 01 Nov 2026 12:01:00 GMT": time.Minute, "Sun, 01 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("Retry-After: %s: %v, want %v", text, got, want)
		}
	}
	s := New(&shelf{}, Options{URL: &url.URL{}})
	for tries, about := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 40: longestPause, 1000: longestPause} {
		for range 100 {
			if got := s.pause(tries); got < about/2 || got >= about*3/2 {
				t.Fatalf("after %d tries: %v, want about %v", tries, got, about)
			}
		}
	}
}
