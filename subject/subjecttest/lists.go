package subjecttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/subject"
)

func testList(t *testing.T, open Open) {
	d := open(t)[0]
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("user %03d", (i*7)%300)
		want = append(want, name)
		change(t, d, subject.Ref{Domain: "llm", Name: name}, setTier(name))
	}
	change(t, d, subject.Ref{Domain: "llm2", Name: "another"}, setTier("x"))
	slices.Sort(want)
	pages := func(size int) (got []string) {
		after := ""
		for {
			page, err := d.List(t.Context(), "llm", after, size)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page {
				if s.Domain != "llm" || s.Tier != s.Name || s.Revision == 0 {
					t.Fatalf("it lists %+v", s)
				}
				got = append(got, s.Name)
			}
			if len(page) < size {
				return got
			}
			after = got[len(got)-1]
		}
	}
	for _, size := range []int{13, 100, 300, 1000} {
		if got := pages(size); !slices.Equal(got, want) {
			t.Errorf("in pages of %d it lists %d names: %.100q…", size, len(got), got)
		}
	}
	for i := 0; i < 300; i += 2 {
		if _, err := d.Delete(t.Context(), subject.Ref{Domain: "llm", Name: want[i]}, by); err != nil {
			t.Fatal(err)
		}
	}
	left := 0
	want = slices.DeleteFunc(want, func(string) bool { left++; return left%2 == 1 })
	if got := pages(20); !slices.Equal(got, want) {
		t.Errorf("after every other was deleted it lists %d names: %.100q…", len(got), got)
	}
	if page, err := d.List(t.Context(), "nobody's", "", 10); err != nil || len(page) != 0 {
		t.Errorf("a domain without subjects: %v, %v", page, err)
	}
	for _, n := range []int{-1, 0, subject.MaxPage + 1} {
		if _, err := d.List(t.Context(), "llm", "", n); !errors.Is(err, subject.ErrInvalid) {
			t.Errorf("a page of %d: %v, want ErrInvalid", n, err)
		}
	}
}

func testAudit(t *testing.T, open Open) {
	all := open(t)
	alice, bob := subject.Ref{Domain: "llm", Name: "alice"}, subject.Ref{Domain: "batch", Name: "bob"}
	full := Full(alice)
	change(t, all[0], alice, become(full))
	change(t, all[0], bob, setTier("free"))
	grant := subject.By{Actor: "ann", Credential: "token ops", Reason: "outage of May 3", Action: "grant", At: 1_700_000_000_000_000}
	if _, err := all[len(all)-1].Change(t.Context(), alice, grant, func(s *subject.Subject) error {
		s.Tier, s.Suspended = "premium", false
		s.Grants[1].Amount = 2
		s.APIKeys = s.APIKeys[:1]
		delete(s.Attributes, "team")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].Delete(t.Context(), alice, by); err != nil {
		t.Fatal(err)
	}
	read := func(of subject.Ref) []subject.Row {
		t.Helper()
		rows, err := all[0].Audit(t.Context(), of, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	var got []string
	rows := read(alice)
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.Actor, ": ", r.Action, " ", r.Subject.Name, ", ", r.Reason, ", ", r.Revision))
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		hidesKeys(t, string(text), full.APIKeys)
	}
	want := []string{
		"root: delete alice, a test, 3", "ann: grant alice, outage of May 3, 2", "root: create alice, a test, 1",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the rows are %q, want %q", got, want)
	}
	if rows[1].Credential != grant.Credential || rows[0].Credential != "" {
		t.Errorf("the grant was made by %q, the deletion by %q: want that of the grant alone", rows[1].Credential, rows[0].Credential)
	}
	if rows[1].At != grant.At {
		t.Errorf("the grant was at %d, want %d, which was given", rows[1].At, grant.At)
	}
	if rows[0].At < rows[2].At || rows[2].At < 1_700_000_000_000_000 || rows[2].At > limit.Micros(limit.MaxAmount) {
		t.Errorf("made at %d, deleted at %d", rows[2].At, rows[0].At)
	}
	got = nil
	for _, c := range rows[1].Changes {
		got = append(got, fmt.Sprintf("%s: %s → %s", c.Field, c.Old, c.New))
	}
	want = []string{
		"api_keys." + full.APIKeys[1].Hash.Fingerprint() + ": {} → ",
		`attributes.team: "größe" → `,
		`grants.g2: {"id":"g2","limit":"llm.user.tokens","amount":1} → {"id":"g2","limit":"llm.user.tokens","amount":2}`,
		`suspended: true → `,
		`tier: "pro" → "premium"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the grant has changed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for of, want := range map[subject.Ref]int{
		{}: 4, {Domain: "llm"}: 3, {Domain: "batch"}: 1, bob: 1, {Domain: "llm", Name: "bob"}: 0,
	} {
		if n := len(read(of)); n != want {
			t.Errorf("of %+v there are %d rows, want %d", of, n, want)
		}
	}
	for name, ask := range map[string]struct {
		of     subject.Ref
		before string
		n      int
	}{
		"no rows":               {alice, "", 0},
		"before what is no id":  {alice, "yesterday", 1},
		"a name without domain": {subject.Ref{Name: "bob"}, "", 1},
	} {
		if _, err := all[0].Audit(t.Context(), ask.of, ask.before, ask.n); !errors.Is(err, subject.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func testAuditPages(t *testing.T, open Open) {
	all := open(t)
	const rows = 120
	for i := range rows {
		of := subject.Ref{Domain: fmt.Sprint("domain ", i%3), Name: fmt.Sprint("user ", i%20)}
		change(t, all[i%len(all)], of, setTier(fmt.Sprint(i)))
	}
	for of, want := range map[subject.Ref]int{
		{}: rows, {Domain: "domain 1"}: rows / 3, {Domain: "domain 2", Name: "user 11"}: rows / 60,
	} {
		whole, err := all[0].Audit(t.Context(), of, "", subject.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		if len(whole) != want {
			t.Errorf("of %+v there are %d rows, want %d", of, len(whole), want)
		}
		if !slices.IsSortedFunc(whole, func(a, b subject.Row) int { return strings.Compare(b.ID, a.ID) }) {
			t.Errorf("rows of %+v are not in order", of)
		}
		var paged []subject.Row
		before := ""
		for {
			page, err := all[0].Audit(t.Context(), of, before, 7)
			if err != nil {
				t.Fatal(err)
			}
			paged = append(paged, page...)
			if len(page) < 7 {
				break
			}
			before = page[6].ID
		}
		if !slices.EqualFunc(paged, whole, func(a, b subject.Row) bool { return a.ID == b.ID }) {
			t.Errorf("in pages of 7 there are %d rows of %+v, want %d", len(paged), of, len(whole))
		}
	}
}

func testAuditBound(t *testing.T, open Open) {
	d := open(t)[0]
	of := subject.Ref{Domain: "llm", Name: "alice"}
	for i := range subject.AuditRows + 50 {
		change(t, d, of, setTier(fmt.Sprint(i)))
	}
	rows, err := d.Audit(t.Context(), of, "", subject.MaxPage)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != subject.AuditRows {
		t.Fatalf("%d rows are left, want %d", len(rows), subject.AuditRows)
	}
	if newest, oldest := rows[0].Revision, rows[len(rows)-1].Revision; newest != subject.AuditRows+50 || oldest != 51 {
		t.Errorf("rows are left from revision %d to %d, want the newest", oldest, newest)
	}
}
