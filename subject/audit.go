package subject

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
)

// Row is one line of the audit: who did what to whom, when, and why.
type Row struct {
	// ID orders rows of whatever shard by time.
	ID string
	// At is when it was done.
	At limit.Micros
	// Subject is to whom.
	Subject Ref
	// Revision is that of the subject after it.
	Revision              uint64
	Actor, Action, Reason string
	// Credential is by what the actor was known; empty: nobody asked.
	Credential string
	Changes    []FieldChange
	// Omitted is how many changes the row had no room for, the longest.
	Omitted int
}

// FieldChange is what a change made of one field, or of one entry of it.
type FieldChange struct {
	// Field is tier, attributes.org, overrides.llm.user.requests, grants.ID, api_keys.FINGERPRINT, or corrected.
	Field string `json:"field"`
	// Old and New are JSON; empty where there was nothing, or is nothing. Of API keys they hold no hash.
	Old json.RawMessage `json:"old,omitempty"`
	New json.RawMessage `json:"new,omitempty"`
}

// maxChanges bounds the changes that a row lists, in bytes.
const maxChanges = 16 << 10

type rowRecord struct {
	Domain     string        `json:"domain"`
	Name       string        `json:"name"`
	Actor      string        `json:"actor"`
	Credential string        `json:"credential,omitempty"`
	Action     string        `json:"action"`
	Reason     string        `json:"reason"`
	At         limit.Micros  `json:"at,omitempty"`
	Changes    []FieldChange `json:"changes,omitempty"`
	Omitted    int           `json:"omitted,omitempty"`
}

func encodeRow(of Ref, by By, old, next *Subject) ([]byte, error) {
	before, err := fieldsOf(old)
	if err != nil {
		return nil, err
	}
	after, err := fieldsOf(next)
	if err != nil {
		return nil, err
	}
	r := rowRecord{
		Domain: of.Domain, Name: of.Name, Actor: by.Actor, Credential: by.Credential, Action: by.Action, Reason: by.Reason, At: by.At,
	}
	union := maps.Clone(before)
	maps.Copy(union, after)
	changed := slices.DeleteFunc(slices.Sorted(maps.Keys(union)), func(field string) bool { return before[field] == after[field] })
	size := func(field string) int { return len(field) + len(before[field]) + len(after[field]) }
	// The short ones go first: nobody hides a new tier behind long attributes.
	slices.SortStableFunc(changed, func(a, b string) int { return cmp.Compare(size(a), size(b)) })
	room := maxChanges
	for i, field := range changed {
		if room -= size(field); room < 0 {
			r.Omitted, changed = len(changed)-i, changed[:i]
			break
		}
	}
	slices.Sort(changed)
	for _, field := range changed {
		r.Changes = append(r.Changes, FieldChange{field, rawOf(before[field]), rawOf(after[field])})
	}
	return json.Marshal(&r)
}

func rawOf(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// fieldsOf returns what a subject says, as JSON for each field or entry.
func fieldsOf(s *Subject) (map[string]string, error) {
	fields := make(map[string]string)
	var failed error
	set := func(field string, value any, is bool) {
		if !is {
			return
		}
		text, err := json.Marshal(value)
		if err != nil {
			failed = err
		}
		fields[field] = string(text)
	}
	set("key", s.Key, s.Key != "")
	set("tier", s.Tier, s.Tier != "")
	set("zone", s.Zone, s.Zone != "")
	set("anchor", s.Anchor, s.Anchor != 0)
	set("suspended", true, s.Suspended)
	set("corrected", &s.Corrected, s.Corrected != Correction{})
	for key, value := range s.Attributes {
		set("attributes."+key, value, true)
	}
	for i := range s.Overrides {
		set("overrides."+s.Overrides[i].Limit, &s.Overrides[i], true)
	}
	for i := range s.Grants {
		set("grants."+s.Grants[i].ID, &s.Grants[i], true)
	}
	for i := range s.APIKeys {
		k := &s.APIKeys[i]
		set("api_keys."+k.Hash.Fingerprint(), keyRecord{Label: k.Label, Created: k.Created}, true)
	}
	return fields, failed
}

// A row is kept as its ID, the revision and JSON, with spaces between. An ID is 16 digits of the instant in
// microseconds, a dot, and three of the shard: in the order of bytes, rows are in the order of time.
//
//	1763822345123456.017 5 {"domain":"llm","name":"alice",…}

// RowID returns the ID of the row that a shard has written at an instant, of which it has none before.
func RowID(at limit.Micros, shard uint8) string { return fmt.Sprintf("%016d.%03d", int64(at), shard) }

const rowIDSize = 16 + 1 + 3

func isRowID(id string) bool {
	return len(id) == rowIDSize && id[16] == '.' && strings.Trim(id[:16]+id[17:], "0123456789") == ""
}

// ReadRowTime returns the instant of a row's ID.
func ReadRowTime(text string) (limit.Micros, error) {
	id, _, _ := strings.Cut(text, " ")
	if !isRowID(id) {
		return 0, fmt.Errorf("%w: an audit row: %.32q is no id", ErrCorrupt, id)
	}
	at, err := strconv.ParseInt(id[:16], 10, 64)
	return limit.Micros(at), err
}

// ReadRow reads a row.
func ReadRow(text string) (Row, error) {
	damaged := func(why error) (Row, error) { return Row{}, fmt.Errorf("%w: an audit row: %w", ErrCorrupt, why) }
	at, err := ReadRowTime(text)
	if err != nil {
		return Row{}, err
	}
	id, rest, _ := strings.Cut(text, " ")
	number, content, _ := strings.Cut(rest, " ")
	revision, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return damaged(err)
	}
	var r rowRecord
	if err := json.Unmarshal([]byte(content), &r); err != nil {
		return damaged(err)
	}
	row := Row{
		ID: id, At: r.At, Subject: Ref{r.Domain, r.Name}, Revision: revision,
		Actor: r.Actor, Credential: r.Credential, Action: r.Action, Reason: r.Reason, Changes: r.Changes, Omitted: r.Omitted,
	}
	if row.At == 0 {
		row.At = at
	}
	return row, nil
}

// Concerns reports whether the row is one of those that [Directory.Audit] is asked for.
func (r *Row) Concerns(of Ref) bool {
	return (of.Domain == "" || of.Domain == r.Subject.Domain) && (of.Name == "" || of.Name == r.Subject.Name)
}

// ValidatePage reports what is wrong with what [Directory.List] or [Directory.Audit] is asked for.
func ValidatePage(n int, before string) error {
	if n < 1 || n > MaxPage {
		return invalid("page_size", "%d is out of range: it is 1…%d", n, MaxPage)
	}
	if before != "" && !isRowID(before) {
		return invalid("before", "%.32q is no id of an audit row: give that of the last row of the page before", before)
	}
	return nil
}

// ValidateAudit is ValidatePage, and reports a name without a domain too.
func ValidateAudit(of Ref, n int, before string) error {
	if of.Domain == "" && of.Name != "" {
		return invalid("domain", "it is missing: a name is one of a domain")
	}
	return ValidatePage(n, before)
}
