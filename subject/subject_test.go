package subject_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/subjecttest"
)

var long = strings.Repeat("x", 70_000)

// Everything in a subject is bounded, and the error names the field.
func TestValidate(t *testing.T) {
	key := subjecttest.NewKey()
	many := func(n int, add func(s *subject.Subject, i int)) func(*subject.Subject) {
		return func(s *subject.Subject) {
			for i := range n {
				add(s, i)
			}
		}
	}
	override := func(s *subject.Subject, i int) {
		s.Overrides = append(s.Overrides, subject.Override{Limit: fmt.Sprint(i), Quantity: "1"})
	}
	grant := func(s *subject.Subject, i int) {
		s.Grants = append(s.Grants, subject.Grant{ID: fmt.Sprint(i), Limit: "l", Amount: 1})
	}
	apiKey := func(s *subject.Subject, _ int) {
		s.APIKeys = append(s.APIKeys, subject.APIKey{Hash: subjecttest.NewKey()})
	}
	attribute := func(s *subject.Subject, i int) {
		if s.Attributes == nil {
			s.Attributes = map[string]string{}
		}
		s.Attributes[fmt.Sprint(i)] = "v"
	}
	one := func(o subject.Override) func(*subject.Subject) {
		return func(s *subject.Subject) { s.Overrides = []subject.Override{o} }
	}
	granted := func(g subject.Grant) func(*subject.Subject) {
		return func(s *subject.Subject) { s.Grants = []subject.Grant{g} }
	}
	listed := func(k ...subject.APIKey) func(*subject.Subject) {
		return func(s *subject.Subject) { s.APIKeys = k }
	}
	with := func(key, value string) func(*subject.Subject) {
		return func(s *subject.Subject) { s.Attributes = map[string]string{key: value} }
	}
	for _, c := range []struct {
		what   string
		change func(*subject.Subject)
		wants  string // the error's beginning; empty: it is valid
	}{
		{"nothing", func(*subject.Subject) {}, ""},
		{"no domain", func(s *subject.Subject) { s.Domain = "" }, "domain: it is missing"},
		{"no name", func(s *subject.Subject) { s.Name = "" }, "name: it is missing"},
		{"a long domain", func(s *subject.Subject) { s.Domain = long[:1025] }, "domain: it has 1025 bytes: 1024 are the most"},
		{"a long name", func(s *subject.Subject) { s.Name = long[:1025] }, "name: it has 1025 bytes: 1024 are the most"},
		{"as long as may be", func(s *subject.Subject) { s.Domain, s.Name = long[:1024], long[:1024] }, ""},
		{"no UTF-8", func(s *subject.Subject) { s.Name = "\xff" }, "name: it is not UTF-8"},
		{"a key", func(s *subject.Subject) { s.Key = "user" }, ""},
		{"a long key", func(s *subject.Subject) { s.Key = long[:257] }, "key: it has 257 bytes"},
		{"a key of ration's", func(s *subject.Subject) { s.Key = "ration.key" }, `key: "ration.key" means something to ration`},
		{"a long tier", func(s *subject.Subject) { s.Tier = long[:129] }, "tier: it has 129 bytes"},
		{"a time zone", func(s *subject.Subject) { s.Zone = "America/Argentina/Buenos_Aires" }, ""},
		{"UTC", func(s *subject.Subject) { s.Zone = "UTC" }, ""},
		{"no time zone", func(s *subject.Subject) { s.Zone = "Europe/Atlantis" }, `zone: "Europe/Atlantis" is no time zone: it is an IANA name`},
		{"the machine's time zone", func(s *subject.Subject) { s.Zone = "Local" }, "zone: "},
		{"a path", func(s *subject.Subject) { s.Zone = "../../etc/passwd" }, "zone: "},
		{"anchor 31", func(s *subject.Subject) { s.Anchor = 31 }, ""},
		{"anchor 32", func(s *subject.Subject) { s.Anchor = 32 }, "anchor: 32 is no day of a month: it is 1…31, or 0"},
		{"anchor −1", func(s *subject.Subject) { s.Anchor = -1 }, "anchor: -1 is no day"},
		{"32 attributes", many(32, attribute), ""},
		{"33 attributes", many(33, attribute), "attributes: there are 33: 32 are the most"},
		{"an attribute without a key", with("", "v"), `attributes[""].key: it is missing`},
		{"an attribute without a value", with("org", ""), `attributes["org"]: it is missing`},
		{"a long attribute", with("org", long[:1025]), `attributes["org"]: it has 1025 bytes`},
		{"an attribute of ration's", with("ration.tier", "pro"), `attributes["ration.tier"].key: "ration.tier" means something`},
		{"its own key", func(s *subject.Subject) { s.Key = "user"; with("user", "bob")(s) }, `attributes["user"]: it is the key that names the subject`},
		{"64 overrides", many(64, override), ""},
		{"65 overrides", many(65, override), "overrides: there are 65: 64 are the most; remove"},
		{"an override of nothing", one(subject.Override{Quantity: "1"}), "overrides[0].limit: it is missing"},
		{"an override by nothing", one(subject.Override{Limit: "l"}), "overrides[0].quantity: it is missing"},
		{"a long quantity", one(subject.Override{Limit: "l", Quantity: long[:65]}), "overrides[0].quantity: it has 65"},
		{"a long path", one(subject.Override{Limit: long[:2049], Quantity: "1"}), "overrides[0].limit: it has 2049"},
		{"a long reason", one(subject.Override{Limit: "l", Quantity: "1", Reason: long[:1025]}), "overrides[0].reason: it has 1025"},
		{"expires before 1970", one(subject.Override{Limit: "l", Quantity: "1", Expires: -1}), "overrides[0].expires: -1 is no instant"},
		{"expires when doubles end", one(subject.Override{Limit: "l", Quantity: "1", Expires: 1 << 53}), "overrides[0].expires: "},
		{"two of one limit", func(s *subject.Subject) { override(s, 1); override(s, 1) }, `overrides[1].limit: "1" has two overrides`},
		{"64 grants", many(64, grant), ""},
		{"65 grants", many(65, grant), "grants: there are 65: 64 are the most"},
		{"granted twice", func(s *subject.Subject) { grant(s, 1); grant(s, 1) }, `grants[1].id: "1" was granted before`},
		{"a grant without an id", granted(subject.Grant{Limit: "l", Amount: 1}), "grants[0].id: it is missing"},
		{"a grant of nothing", granted(subject.Grant{ID: "g", Limit: "l"}), "grants[0].amount: 0 is out of range: it is 1…9007199254740991"},
		{"a grant below nothing", granted(subject.Grant{ID: "g", Limit: "l", Amount: -1}), "grants[0].amount: -1"},
		{"the largest grant", granted(subject.Grant{ID: "g", Limit: "l", Amount: 1<<53 - 1}), ""},
		{"a grant beyond doubles", granted(subject.Grant{ID: "g", Limit: "l", Amount: 1 << 53}), "grants[0].amount: 9007199254740992"},
		{"100 API keys", many(100, apiKey), ""},
		{"101 API keys", many(101, apiKey), "api_keys: there are 101: 100 are the most"},
		{"an API key without a hash", listed(subject.APIKey{Label: "l"}), "api_keys[0].hash: it is missing"},
		{"an API key twice", listed(subject.APIKey{Hash: key}, subject.APIKey{Hash: key}), "api_keys[1]: the key is there already"},
		{"a long label", listed(subject.APIKey{Hash: key, Label: long[:129]}), "api_keys[0].label: it has 129"},
	} {
		s := subject.Subject{Domain: "llm", Name: "alice"}
		c.change(&s)
		switch err := s.Validate(); {
		case c.wants == "":
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		case err == nil || !errors.Is(err, subject.ErrInvalid) || !strings.HasPrefix(err.Error(), c.wants):
			t.Errorf("%s: %.200v, want ErrInvalid that begins with %s", c.what, err, c.wants)
		case strings.Contains(err.Error(), "\n") || len(err.Error()) > 300:
			t.Errorf("%s: the error says too much: %.400v", c.what, err)
		}
	}
}

// All that is wrong is said at once, each with its field.
func TestValidateSaysEverything(t *testing.T) {
	s := subject.Subject{Domain: "llm", Name: "alice", Zone: "Mars", Anchor: 40}
	err := s.Validate()
	var first *subject.InvalidError
	if !errors.As(err, &first) || first.Field != "zone" || !strings.Contains(err.Error(), "\nanchor: ") {
		t.Errorf("the error is %v, want one about zone and anchor", err)
	}
}

// What all together is too large is refused, though each of it may be.
func TestRecordIsBounded(t *testing.T) {
	_, err := subject.Plan(alice, nil, subject.By{Actor: "a", Reason: "r"}, func(s *subject.Subject) error {
		for i := range subject.MaxOverrides {
			s.Overrides = append(s.Overrides, subject.Override{Limit: fmt.Sprint(i), Quantity: "1", Reason: long[:1024]})
		}
		return nil
	})
	if !errors.Is(err, subject.ErrInvalid) || !strings.Contains(err.Error(), "65536 are the most") {
		t.Errorf("the error is %v", err)
	}
}

// What counts now of a subject's overrides and grants.
func TestExpiry(t *testing.T) {
	s := subject.Subject{
		Overrides: []subject.Override{
			{Limit: "a", Quantity: "1"}, {Limit: "b", Quantity: "2", Expires: 100},
		},
		Grants: []subject.Grant{
			{ID: "1", Limit: "a", Amount: 10}, {ID: "2", Limit: "a", Amount: 5, Expires: 100},
			{ID: "3", Limit: "b", Amount: limit.MaxAmount}, {ID: "4", Limit: "b", Amount: limit.MaxAmount},
		},
	}
	for now, want := range map[limit.Micros]string{
		99:  "a 1 15, b 2 9007199254740991, c - 0",
		100: "a 1 10, b - 9007199254740991, c - 0",
	} {
		var got []string
		for _, path := range []string{"a", "b", "c"} {
			quantity, ok := s.Override(path, now)
			if !ok {
				quantity = "-"
			}
			got = append(got, fmt.Sprint(path, " ", quantity, " ", s.Granted(path, now)))
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("at %d: %s, want %s", now, text, want)
		}
	}
	kept := s.Clone()
	s.DropExpired(100)
	if len(s.Overrides) != 1 || len(s.Grants) != 3 || s.Overrides[0].Limit != "a" {
		t.Errorf("after dropping what is over there is %+v", s)
	}
	if kept.Overrides[1].Limit != "b" || kept.Grants[1].ID != "2" {
		t.Error("a clone shares memory with what it was made from")
	}
}

// A key that a person could have thought of is refused where it is added.
func TestNewAPIKey(t *testing.T) {
	for key, wants := range map[subject.Secret]string{
		"":                          "api_key: it has 0 bytes, and could be guessed",
		"fifteen bytes !":           "api_key: it has 15 bytes, and could be guessed",
		subject.Secret(long[:1025]): "api_key: it has 1025 bytes: 1024 are the most",
	} {
		_, err := subject.NewAPIKey(key, "l", 7)
		if !errors.Is(err, subject.ErrInvalid) || !strings.HasPrefix(err.Error(), wants) {
			t.Errorf("a key of %d bytes: %v, want %s…", len(key), err, wants)
		}
		if key != "" && strings.Contains(err.Error(), string(key)) {
			t.Errorf("the error holds the key: %v", err)
		}
	}
	k, err := subject.NewAPIKey("sixteen bytes !!", "laptop", 7)
	if err != nil || k.Hash != subject.HashKey("sixteen bytes !!") || k.Label != "laptop" || k.Created != 7 {
		t.Errorf("it is %+v, %v", k, err)
	}
	if want := "bd14c3508f2b078516feeb102a340cec1ab855c46a0b30fae1a66826041732a2"; k.Hash.Hex() != want { // printf %s 'sixteen bytes !!' | sha256sum
		t.Errorf("its hash is %s, want %s", k.Hash.Hex(), want)
	}
	back, err := subject.ParseKeyHash(k.Hash.Hex())
	if err != nil || back != k.Hash {
		t.Errorf("read again it is another: %v", err)
	}
	for _, bad := range []string{"", "ab", k.Hash.Hex()[:63] + "x", k.Hash.Hex() + "00"} {
		if _, err := subject.ParseKeyHash(bad); !errors.Is(err, subject.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", bad, err)
		}
	}
}

// Neither a key nor its hash gets into a log, a message or JSON by accident.
func TestKeysHideThemselves(t *testing.T) {
	const key = "sk-0123456789abcdef"
	hash := subject.HashKey(key)
	s := subject.Subject{Domain: "d", Name: "n", APIKeys: []subject.APIKey{{Hash: hash, Label: "laptop"}}}
	var text strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		fmt.Fprintf(&text, verb+"\n", hash)
		fmt.Fprintf(&text, verb+"\n", &hash)
		fmt.Fprintf(&text, verb+"\n", subject.Secret(key))
		fmt.Fprintf(&text, verb+"\n", s)
		fmt.Fprintf(&text, verb+"\n", subject.Answer{Subject: &s})
	}
	fmt.Fprintln(&text, hash.String(), subject.Secret(key).String())
	for _, log := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&text, nil)} {
		slog.New(log).Info("a change", "hash", hash, "key", subject.Secret(key), "subject", s)
	}
	encoded, err := json.Marshal(map[string]any{"hash": hash, "key": subject.Secret(key), "subject": s})
	if err != nil {
		t.Fatal(err)
	}
	text.Write(encoded)
	all := strings.ToLower(text.String())
	for _, secret := range []string{key, fmt.Sprintf("%x", key), hash.Hex(), hash.Fingerprint(), string(hash[:]), fmt.Sprint([32]byte(hash))[1:20]} {
		if strings.Contains(all, strings.ToLower(secret)) {
			t.Errorf("%q is in\n%s", secret, all)
		}
	}
	if !strings.Contains(all, "laptop") {
		t.Error("the label is hidden too")
	}
}

// A record is read as it was written; one from a newer version is read too, but not written over.
func TestRecord(t *testing.T) {
	want := subjecttest.Full(alice)
	step, err := subject.Plan(alice, nil, subject.By{Actor: "a", Reason: "r"}, func(s *subject.Subject) error {
		*s = want.Clone()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want.Revision = 17
	for _, read := range []func(subject.Ref, string) (subject.Subject, error){subject.ReadRecord, subject.ReadRecordToChange} {
		if got, err := read(alice, "17 "+string(step.Content)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("it is read as %+v, %v, want %+v", got, err, want)
		}
	}
	newer := `3 {"tier":"pro","mood":"good"}`
	if got, err := subject.ReadRecord(alice, newer); err != nil || got.Tier != "pro" {
		t.Errorf("a newer record: %+v, %v", got, err)
	}
	if _, err := subject.ReadRecordToChange(alice, newer); !errors.Is(err, subject.ErrCorrupt) || !strings.Contains(err.Error(), "newer ration") {
		t.Errorf("a newer record, to be changed: %v, want ErrCorrupt that says so", err)
	}
	for _, bad := range []string{"", "7", "x {}", "0 {}", "-1 {}", "07 {}", "9999999999999999 {}", "7 ", "7 [1]", `7 {"tier":`, `7 {"api_keys":[{"hash":"AAAA"}]}`} {
		got, err := subject.ReadRecord(alice, bad)
		if !errors.Is(err, subject.ErrCorrupt) || !strings.Contains(err.Error(), "alice") || !strings.Contains(err.Error(), "delete the subject") {
			t.Errorf("%q: %v, want ErrCorrupt that names the subject and the cure", bad, err)
		}
		if got.Ref() != alice || strings.HasPrefix(bad, "7 ") && got.Revision != 7 {
			t.Errorf("%q: it is %v at revision %d", bad, got.Ref(), got.Revision)
		}
	}
}

// Refs are written down injectively.
func TestRefEncoding(t *testing.T) {
	seen := map[string]subject.Ref{}
	for _, r := range []subject.Ref{
		{}, {Domain: "a"}, {Name: "a"}, {Domain: "a", Name: "b"}, {Domain: "ab"}, {Domain: "1:a", Name: "b"}, {Domain: "", Name: "1:ab"},
	} {
		text := r.Encode()
		if other, taken := seen[text]; taken {
			t.Errorf("%+v and %+v are both written %q", other, r, text)
		}
		seen[text] = r
		if back, ok := subject.ParseRef(text); !ok || back != r {
			t.Errorf("%q is read as %+v, %v", text, back, ok)
		}
	}
	for _, bad := range []string{"", "a", "2:a", "01:ab", "-1:a", "99999999:a", "+1:ab"} {
		if r, ok := subject.ParseRef(bad); ok {
			t.Errorf("%q is read as %+v", bad, r)
		}
	}
}

// The shards of subjects that are in databases already.
func TestShards(t *testing.T) {
	hit := map[uint8]bool{}
	for i := range 5000 {
		hit[subject.Ref{Domain: "llm", Name: fmt.Sprint("user ", i)}.Shard()] = true
	}
	if len(hit) != subject.Shards {
		t.Errorf("subjects are in %d of %d shards", len(hit), subject.Shards)
	}
	for r, want := range map[subject.Ref]uint8{{Domain: "llm", Name: "alice"}: 29, {Domain: "a", Name: "bc"}: 8, {Domain: "ab", Name: "c"}: 247} {
		if got := r.Shard(); got != want {
			t.Errorf("%+v is in shard %d, and was in %d: databases that are there would lose it", r, got, want)
		}
	}
}

// What is short is in a row, whatever else was changed with it: who raises somebody's tier cannot hide that.
func TestRowHasWhatIsShort(t *testing.T) {
	step, err := subject.Plan(alice, nil, subject.By{Actor: "a", Reason: "r"}, func(s *subject.Subject) error {
		s.Tier, s.Suspended, s.Zone, s.Attributes = "premium", true, "Europe/Berlin", make(map[string]string)
		for i := range 20 {
			s.Attributes[fmt.Sprintf("note %02d", i)] = long[:1000]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	row, err := subject.ReadRow(subject.RowID(1_763_822_345_123_456, 7) + " 5 " + string(step.Row))
	if err != nil {
		t.Fatal(err)
	}
	changed := make(map[string]string)
	for _, c := range row.Changes {
		changed[c.Field] = string(c.New)
	}
	if changed["tier"] != `"premium"` || changed["suspended"] != "true" || changed["zone"] != `"Europe/Berlin"` {
		t.Errorf("it says that the tier is %s now, suspended %s, the zone %s", changed["tier"], changed["suspended"], changed["zone"])
	}
	if len(row.Changes)+row.Omitted != 23 || row.Omitted == 0 {
		t.Errorf("it has %d changes and omits %d, want 23", len(row.Changes), row.Omitted)
	}
}

// A row that has no room for all changes says how many it leaves out.
func TestRowIsBounded(t *testing.T) {
	step, err := subject.Plan(alice, nil, subject.By{Actor: "a", Reason: "r"}, func(s *subject.Subject) error {
		for i := range 40 {
			s.Overrides = append(s.Overrides, subject.Override{Limit: fmt.Sprintf("limit %02d", i), Quantity: "1", Reason: long[:1000]})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	row, err := subject.ReadRow(subject.RowID(1_763_822_345_123_456, 7) + " 5 " + string(step.Row))
	if err != nil {
		t.Fatal(err)
	}
	if len(step.Row) > 20<<10 || len(row.Changes) < 10 || len(row.Changes)+row.Omitted != 40 {
		t.Errorf("a row of %d bytes has %d changes and omits %d", len(step.Row), len(row.Changes), row.Omitted)
	}
	if row.ID != "1763822345123456.007" || row.At != 1_763_822_345_123_456 || row.Revision != 5 {
		t.Errorf("it is %s at %d, revision %d", row.ID, row.At, row.Revision)
	}
	for _, bad := range []string{"", "x 1 {}", "1763822345123456.007", "1763822345123456.007 x {}", "1763822345123456.007 1 {", "176382234512345a.007 1 {}"} {
		if _, err := subject.ReadRow(bad); !errors.Is(err, subject.ErrCorrupt) {
			t.Errorf("%q: %v, want ErrCorrupt", bad, err)
		}
	}
}
