package examples_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// row is one line of the table at the end of a policy.
type row struct {
	place   string // FILE:LINE
	at      limit.Micros
	request engine.Request
	phase   string
	times   int
	answer  string
}

// rows reads the table of a policy: comments below a heading of `time`, `request` and `answer`, in
// columns that stand at least two spaces apart.
//
// A request is the entries of its descriptor, `hits=` for an amount other than 1, and `x5` if it is
// made five times; then every one is answered as the row says, up to what is left at the end. `+`, perhaps on a
// line of its own, begins another descriptor, with the entries of the one before but for those that are said anew.
func rows(t *testing.T, source policy.Source) (all []row) {
	t.Helper()
	columns := regexp.MustCompile(` {2,}`)
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(source.Data))
	for n := 1; lines.Scan(); n++ {
		place := fmt.Sprintf("%s:%d", source.Name, n)
		cells := columns.Split(strings.TrimSpace(strings.TrimPrefix(lines.Text(), "#")), -1)
		switch {
		case len(cells) == 3 && cells[0] == "time":
			inside = true
			continue
		case !inside:
			continue
		case len(cells) == 1 && strings.HasPrefix(cells[0], "+ ") && len(all) > 0:
			all[len(all)-1].read(t, cells[0])
			continue
		case len(cells) != 3:
			t.Fatalf("%s: %d columns, want time, request and answer", place, len(cells))
		}
		day := "2026-11-23 " // a Monday
		if strings.Contains(cells[0], " ") {
			day = ""
		}
		at, err := time.Parse(time.DateTime, day+cells[0])
		if err != nil {
			t.Fatalf("%s: %v", place, err)
		}
		r := row{place: place, at: limit.At(at), times: 1, answer: cells[2]}
		r.request.Descriptors = make([]engine.Descriptor, 1)
		r.read(t, cells[1])
		all = append(all, r)
	}
	return all
}

// read adds the words of a request to r.
func (r *row) read(t *testing.T, words string) {
	t.Helper()
	var err error
	for _, word := range strings.Fields(words) {
		key, value, isEntry := strings.Cut(word, "=")
		d := &r.request.Descriptors[len(r.request.Descriptors)-1]
		switch {
		case word == "+":
			r.request.Descriptors = append(r.request.Descriptors, engine.Descriptor{Entries: slices.Clone(d.Entries)})
		case key == "hits":
			d.HasHits = true
			d.Hits, err = strconv.ParseUint(value, 10, 64)
		case isEntry:
			d.Entries = slices.DeleteFunc(d.Entries, func(e policy.Entry) bool { return e.Key == key })
			d.Entries = append(d.Entries, policy.Entry{Key: key, Value: value})
			if key == "ration.phase" {
				r.phase = value
			}
		default:
			r.times, err = strconv.Atoi(strings.TrimPrefix(word, "x"))
		}
		if err != nil {
			t.Fatalf("%s: %q: %v", r.place, word, err)
		}
	}
}

// answer says a decision as the tables do.
func answer(phase string, d *engine.Decision) string {
	if !d.Over {
		word := map[string]string{"": "admitted", "hold": "admitted", "record": "settled", "done": "done"}[phase]
		if s := &d.Statuses[0]; s.Limited {
			left := strconv.FormatInt(s.Remaining, 10)
			if s.Applied != nil && s.Applied.Limit.Meter == policy.Cost {
				left = policy.Cost.Number(s.Remaining)
			}
			word += fmt.Sprintf(", %s left", left)
		}
		return word
	}
	s := &d.Statuses[d.Binding()]
	word := "refused by " + s.Applied.Limit.Name
	switch {
	case d.Verdict() == engine.Impossible:
		return word + ", too large"
	case s.Applied.Unpriced != "":
		return word + ", no price"
	}
	word += fmt.Sprintf(", retry after %v", s.ResetAfter.Duration())
	if s.Applied.Status.Estimated {
		word += ", estimated"
	}
	return word
}

// stores makes a store of each kind, on a clock that the test sets.
func stores(t *testing.T) map[string]func(clock func() limit.Micros) store.Store {
	server := redistest.Start(t)
	return map[string]func(func() limit.Micros) store.Store{
		"memory": func(clock func() limit.Micros) store.Store {
			// The sweeper reads the clock too, but not before the test is over.
			return memory.New(memory.Options{Clock: clock, SweepEvery: 1000 * time.Hour})
		},
		"redis": func(clock func() limit.Micros) store.Store {
			s, err := redis.New(redis.Options{URL: server.URL(), Clock: clock, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}

// Every policy is free of warnings, and admits whom its table says, whichever store counts.
func TestPolicies(t *testing.T) {
	files, err := filepath.Glob("policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	index, err := os.ReadFile("policies/README.md")
	if err != nil {
		t.Fatal(err)
	}
	opens := stores(t)
	var all []policy.Source
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source := policy.Source{Name: file, Data: text}
		all = append(all, source)
		if !bytes.Contains(index, []byte("]("+filepath.Base(file)+")")) {
			t.Errorf("the README does not name %s", file)
		}
		for store, open := range opens {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+store, func(t *testing.T) { walk(t, source, open) })
		}
	}
	if _, _, err := policy.Parse(all, policy.Options{Strict: true}); err != nil {
		t.Errorf("they cannot be served together: %v", err)
	}
}

// walk makes the requests of a policy's table.
func walk(t *testing.T, source policy.Source, open func(clock func() limit.Micros) store.Store) {
	t.Helper()
	p, _, err := policy.Parse([]policy.Source{source}, policy.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	var now limit.Micros
	s := open(func() limit.Micros { return now })
	defer func() { _ = s.Close() }()
	e := engine.New(s, engine.Options{})
	e.SetPolicy(p)

	admits, refuses := false, false
	for _, r := range rows(t, source) {
		if r.at < now {
			t.Fatalf("%s: earlier than the row before", r.place)
		}
		now = r.at
		r.request.Domain = p.Domains()[0].Name()
		for n := 1; n <= r.times; n++ {
			var d engine.Decision
			if err := e.Decide(t.Context(), &r.request, &d); err != nil {
				t.Fatalf("%s: %v", r.place, err)
			}
			got, want := answer(r.phase, &d), r.answer
			if n < r.times { // what is left is told of the last one
				got, _, _ = strings.Cut(got, ",")
				want, _, _ = strings.Cut(want, ",")
			}
			if got != want {
				t.Errorf("%s: request %d of %d: %s, want %s", r.place, n, r.times, got, want)
				break
			}
		}
		admits, refuses = admits || strings.HasPrefix(r.answer, "admitted"), refuses || strings.HasPrefix(r.answer, "refused")
	}
	if !admits || !refuses {
		t.Errorf("%s: its table shows admitted requests: %v, refused ones: %v", source.Name, admits, refuses)
	}
}
