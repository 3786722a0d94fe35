package subjecttest

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/rationhq/ration/subject"
)

func testFound(t *testing.T, open Open) {
	all := open(t)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	want := Full(of)
	if _, found := find(t, all[0], of); found {
		t.Fatal("there is a subject before any is made")
	}
	made := change(t, all[0], of, become(want))
	want.Revision = 1
	if !reflect.DeepEqual(made, want) {
		t.Errorf("it became %+v, want %+v", made, want)
	}
	for i, d := range all {
		if got, found := find(t, d, of); !found || !reflect.DeepEqual(got, want) {
			t.Errorf("server %d finds %+v, want %+v", i, got, want)
		}
	}
	bare := change(t, all[0], subject.Ref{Domain: "llm", Name: "bob"}, setTier(""))
	if got, found := find(t, all[0], bare.Ref()); !found || got.Revision != 1 {
		t.Errorf("of whom nothing is said: found %v, revision %d, want 1", found, got.Revision)
	}
}

func testNames(t *testing.T, open Open) {
	d := open(t)[0]
	refs := []subject.Ref{
		{Domain: "a", Name: "bc"}, {Domain: "ab", Name: "c"}, {Domain: "a", Name: "b|c"}, {Domain: "a|b", Name: "c"},
		{Domain: "1:a", Name: "b"}, {Domain: "1", Name: ":ab"}, {Domain: "a", Name: "\x00"}, {Domain: "a\x00", Name: "b"},
		{Domain: "a", Name: "{x}"}, {Domain: "}{", Name: "\r\n"}, {Domain: "ü", Name: "日本 語"}, {Domain: "-", Name: "+"},
		{Domain: strings.Repeat("d", subject.MaxName), Name: strings.Repeat("n", subject.MaxName)},
		{Domain: strings.Repeat("d", subject.MaxName), Name: strings.Repeat("n", subject.MaxName-1)},
	}
	for i, of := range refs {
		change(t, d, of, setTier("tier "+string(rune('a'+i))))
	}
	for i, of := range refs {
		s, found := find(t, d, of)
		if !found || s.Tier != "tier "+string(rune('a'+i)) || s.Ref() != of {
			t.Errorf("%.20q of %.20q: found %v, %q of tier %q", of.Name, of.Domain, found, s.Name, s.Tier)
		}
	}
	for _, of := range []subject.Ref{
		{}, {Domain: "a"}, {Name: "bc"}, {Domain: "a", Name: "b\xff"}, {Domain: "a", Name: "b"},
		{Domain: "a", Name: strings.Repeat("n", subject.MaxName+1)},
	} {
		if _, found := find(t, d, of); found {
			t.Errorf("there is a %.20q of %.20q", of.Name, of.Domain)
		}
	}
}

func testChanges(t *testing.T, open Open) {
	all := open(t)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	for i, tier := range []string{"free", "pro", "pro", "premium"} {
		s := change(t, all[i%len(all)], of, setTier(tier))
		if want := []uint64{1, 2, 2, 3}[i]; s.Revision != want || s.Tier != tier {
			t.Errorf("change %d: revision %d, tier %s, want %d, %s", i, s.Revision, s.Tier, want, tier)
		}
	}
	rows, err := all[0].Audit(t.Context(), of, "", 10)
	if err != nil || len(rows) != 3 {
		t.Errorf("%d audit rows, %v; want 3, since one change changed nothing", len(rows), err)
	}
}

func testRefused(t *testing.T, open Open) {
	d := open(t)[0]
	of := subject.Ref{Domain: "llm", Name: "alice"}
	before := change(t, d, of, setTier("free"))
	own := errors.New("their own")
	fails := func(s *subject.Subject) error { s.Tier = "x"; return own }
	renames := func(s *subject.Subject) error { s.Name = "bob"; return nil }
	revises := func(s *subject.Subject) error { s.Revision = 7; return nil }
	moves := func(s *subject.Subject) error { s.Zone = "Mars"; return nil }
	for name, c := range map[string]struct {
		of    subject.Ref
		by    subject.By
		apply func(*subject.Subject) error
		want  error
		names string
	}{
		"an error of apply": {of, by, fails, own, "their own"},
		"no actor":          {of, subject.By{Reason: "r"}, setTier("x"), subject.ErrInvalid, "actor"},
		"no reason":         {of, subject.By{Actor: "a"}, setTier("x"), subject.ErrInvalid, "reason"},
		"no name":           {subject.Ref{Domain: "llm"}, by, setTier("x"), subject.ErrInvalid, "name"},
		"no domain":         {subject.Ref{Name: "bob"}, by, setTier("x"), subject.ErrInvalid, "domain"},
		"another name":      {of, by, renames, subject.ErrInvalid, "name"},
		"another revision":  {of, by, revises, subject.ErrInvalid, "revision"},
		"no time zone":      {of, by, moves, subject.ErrInvalid, "zone"},
	} {
		_, err := d.Change(t.Context(), c.of, c.by, c.apply)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v, want %v that names %s", name, err, c.want, c.names)
		}
	}
	if _, err := d.Delete(t.Context(), of, subject.By{Actor: "a"}); !errors.Is(err, subject.ErrInvalid) {
		t.Errorf("deleted without a reason: %v, want ErrInvalid", err)
	}
	if s, found := find(t, d, of); !found || !reflect.DeepEqual(s, before) {
		t.Errorf("after nothing but errors it is %+v, want %+v", s, before)
	}
	if rows, err := d.Audit(t.Context(), subject.Ref{}, "", 10); err != nil || len(rows) != 1 {
		t.Errorf("%d audit rows, %v; want the first only", len(rows), err)
	}
}

func testDeletion(t *testing.T, open Open) {
	all := open(t)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	last := all[len(all)-1]
	if found, err := all[0].Delete(t.Context(), of, by); found || err != nil {
		t.Errorf("deleted before it was made: found %v, %v", found, err)
	}
	full := Full(of)
	change(t, all[0], of, become(full))
	change(t, all[0], of, setTier("free"))
	if found, err := last.Delete(t.Context(), of, by); !found || err != nil {
		t.Errorf("deleted: found %v, %v", found, err)
	}
	if _, found := find(t, all[0], of); found {
		t.Error("it is still there")
	}
	for _, k := range full.APIKeys {
		if owner := findByKey(t, all[0], k.Hash); owner != (subject.Ref{}) {
			t.Errorf("its API key still is that of %v", owner)
		}
	}
	if list, err := all[0].List(t.Context(), "llm", "", 10); err != nil || len(list) != 0 {
		t.Errorf("it is still listed: %v, %v", list, err)
	}
	s := change(t, all[0], of, addKey(full.APIKeys[0].Hash))
	if s.Tier != "" || s.Revision <= 3 {
		t.Errorf("made anew it has tier %q and revision %d, want none, and one above 3", s.Tier, s.Revision)
	}
	if owner := findByKey(t, last, full.APIKeys[0].Hash); owner != of {
		t.Errorf("its API key is that of %v", owner)
	}
}
