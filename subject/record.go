package subject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
)

// record is how a subject is written down: JSON, without its name, which is the key, and its revision, which stands
// before it: see [Subject.AppendRecord]. The names of fields are fixed.
type record struct {
	Key        string            `json:"key,omitempty"`
	Tier       string            `json:"tier,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Anchor     int               `json:"anchor,omitempty"`
	Suspended  bool              `json:"suspended,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Overrides  []Override        `json:"overrides,omitempty"`
	Grants     []Grant           `json:"grants,omitempty"`
	APIKeys    []keyRecord       `json:"api_keys,omitempty"`
	Corrected  Correction        `json:"corrected,omitzero"`
}

type keyRecord struct {
	Hash    []byte       `json:"hash,omitempty"`
	Label   string       `json:"label,omitempty"`
	Created limit.Micros `json:"created,omitempty"`
}

// content is the record without the revision. Two subjects of one name that say the same have the same.
func (s *Subject) content() ([]byte, error) {
	r := record{
		Key: s.Key, Tier: s.Tier, Zone: s.Zone, Anchor: s.Anchor, Suspended: s.Suspended,
		Attributes: s.Attributes, Overrides: s.Overrides, Grants: s.Grants, Corrected: s.Corrected,
	}
	for i := range s.APIKeys {
		k := &s.APIKeys[i]
		r.APIKeys = append(r.APIKeys, keyRecord{k.Hash[:], k.Label, k.Created})
	}
	return json.Marshal(&r)
}

// A record is what a directory keeps of one subject: the revision, a space, and JSON.
//
//	17 {"tier":"pro","zone":"Europe/Berlin"}

// ReadRecord reads the record of a subject. What a newer ration has written there beside is left out. Of a record that is
// ErrCorrupt the subject that is returned has the name, and the revision if there is one.
func ReadRecord(of Ref, text string) (Subject, error) { return readRecord(of, text, false) }

// ReadRecordToChange reads the record of a subject that is to be written again. It is [ErrCorrupt] if a newer ration
// has written something there that would be lost.
func ReadRecordToChange(of Ref, text string) (Subject, error) { return readRecord(of, text, true) }

func readRecord(of Ref, text string, strict bool) (Subject, error) {
	revision, content, ok := cutRevision(text)
	damaged := func(why error) (Subject, error) {
		return Subject{Domain: of.Domain, Name: of.Name, Revision: revision},
			fmt.Errorf("%w: subject %.80q of domain %.80q: %w", ErrCorrupt, of.Name, of.Domain, why)
	}
	if !ok {
		return damaged(fmt.Errorf("it has no revision: delete the subject and make it again"))
	}
	var r record
	d := json.NewDecoder(bytes.NewReader(content))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(&r); err != nil {
		if strict && json.Unmarshal(content, &r) == nil {
			return damaged(fmt.Errorf("a newer ration has written it (%w): change it with that one", err))
		}
		return damaged(fmt.Errorf("%w: delete the subject and make it again", err))
	}
	s := Subject{
		Domain: of.Domain, Name: of.Name, Revision: revision,
		Key: r.Key, Tier: r.Tier, Zone: r.Zone, Anchor: r.Anchor, Suspended: r.Suspended,
		Attributes: r.Attributes, Overrides: r.Overrides, Grants: r.Grants, Corrected: r.Corrected,
	}
	for _, k := range r.APIKeys {
		if len(k.Hash) != len(KeyHash{}) {
			return damaged(fmt.Errorf("the hash of an API key has %d bytes: delete the subject and make it again", len(k.Hash)))
		}
		s.APIKeys = append(s.APIKeys, APIKey{KeyHash(k.Hash), k.Label, k.Created})
	}
	return s, nil
}

// cutRevision reads a number from 1, of 15 digits at most, as lua/change.lua of the directory in Redis does.
func cutRevision(text string) (revision uint64, content []byte, ok bool) {
	number, rest, ok := strings.Cut(text, " ")
	if !ok || len(number) > 15 || strings.HasPrefix(number, "0") {
		return 0, nil, false
	}
	revision, err := strconv.ParseUint(number, 10, 64)
	return revision, []byte(rest), err == nil
}
