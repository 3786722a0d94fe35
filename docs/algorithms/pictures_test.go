package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// What is committed is what packages limit and lane do.
func TestPicturesAreCurrent(t *testing.T) {
	var page []byte
	for _, name := range []string{"../algorithms.md", "../lanes.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		page = append(page, text...)
	}
	drawn := map[string]bool{}
	for _, p := range pictures() {
		drawn[p.file] = true
		want := p.draw()
		if got, err := os.ReadFile(p.file); err != nil || string(got) != want {
			t.Errorf("%s is not what is drawn now (%v): run make generate", p.file, err)
		}
		for d := xml.NewDecoder(strings.NewReader(want)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", p.file, err)
			}
		}
		if !strings.Contains(string(page), "](algorithms/"+p.file+")") {
			t.Errorf("neither docs/algorithms.md nor docs/lanes.md shows %s", p.file)
		}
	}
	files, err := filepath.Glob("*.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !drawn[f] {
			t.Errorf("nothing draws %s", f)
		}
	}
}

func TestWrite(t *testing.T) {
	folder := t.TempDir()
	if err := write(folder); err != nil {
		t.Fatal(err)
	}
	for _, p := range pictures() {
		if _, err := os.Stat(filepath.Join(folder, p.file)); err != nil {
			t.Error(err)
		}
	}
	if err := write(filepath.Join(folder, "missing")); err == nil {
		t.Error("writing where there is no folder succeeded")
	}
}

// bound is the most that a limit admits within one window's length, as the page has it.
func bound(s *limit.Spec) int {
	most := s.Limit
	switch s.Algorithm {
	case limit.FixedWindow:
		most = 2 * s.Limit
		if s.FirstUse {
			most--
		}
	case limit.SlidingWindow:
		most = 2*s.Limit - 1
	case limit.TokenBucket:
		most = s.Limit + s.Burst - 1
	default: // sliding_log
	}
	return int(most)
}

// The picture of the worst minute shows each algorithm at its bound, and the page has the numbers.
func TestWorstMinute(t *testing.T) {
	page, err := os.ReadFile("../algorithms.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range worstRows() {
		outcomes, _ := ask(r.spec, r.asked, epoch, epoch+3*minute, second)
		most, _, _ := busiest(outcomes, minute)
		if most != bound(r.spec) {
			t.Errorf("%s: %d in the busiest minute, the bound is %d", r.name, most, bound(r.spec))
		}
		name := "`" + strings.Replace(r.name, ", first use", "`, `starts: first_use", 1) + "`"
		name = strings.Replace(name, ", burst 10`", "`", 1)
		if row := fmt.Sprintf("| **%d** |", most); !slices.ContainsFunc(strings.Split(string(page), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "| "+name+" |") && strings.Contains(line, row)
		}) {
			t.Errorf("docs/algorithms.md has no row of %s with %s", name, row)
		}
	}
}

// However requests are timed, no minute gets more than the bound.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		algorithms := []limit.Algorithm{limit.FixedWindow, limit.TokenBucket, limit.SlidingWindow, limit.SlidingLog}
		s := &limit.Spec{
			Algorithm: rapid.SampledFrom(algorithms).Draw(r, "algorithm"),
			Limit:     rapid.Int64Range(1, 12).Draw(r, "limit"),
			Burst:     rapid.Int64Range(1, 12).Draw(r, "burst"),
			Window:    minute,
		}
		s.FirstUse = s.Algorithm == limit.FixedWindow && rapid.Bool().Draw(r, "first use")
		gap := rapid.SampledFrom([]limit.Micros{0, 1, second, 5 * second, minute - 1, minute})
		gaps := rapid.SliceOfN(gap, 1, 80).Draw(r, "gaps")
		now, asked := epoch+limit.Micros(rapid.Int64Range(0, int64(minute)).Draw(r, "begin")), []limit.Micros(nil)
		for _, gap := range gaps {
			now += gap
			asked = append(asked, now)
		}
		outcomes, _ := ask(s, asked, epoch, now+1, minute)
		if most, from, to := busiest(outcomes, minute); most > bound(s) {
			r.Fatalf("%d from %s to %s, the bound is %d", most, clock(from), clock(to), bound(s))
		}
	})
}

func TestSimplified(t *testing.T) {
	step := []point{{0, 0}, {50, 0}, {100, 0}, {100, 70}, {130, 70}, {200, 70}}
	if got, want := line(step), "M0 0L10 0L10 7L20 7"; got != want {
		t.Errorf("a step is %s, want %s", got, want)
	}
	for n, want := range map[tenths]string{0: "0", 5: "0.5", 10: "1", -15: "-1.5", 7600: "760"} {
		if got := n.String(); got != want {
			t.Errorf("%d tenths are %s, want %s", int(n), got, want)
		}
	}
}
