package subject

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
)

// Step is one change, worked out: what a directory has to write. Directories make it by [Plan] and [PlanDelete], so
// that changes mean the same in all of them.
type Step struct {
	Ref Ref
	// Old is what there was; nil: nothing.
	Old *Subject
	// New is what there will be, but for its revision; nil: nothing.
	New *Subject
	// Content is the record of New without the revision: see [ReadRecord].
	Content []byte
	// Row is the audit row, as [ReadRow] reads it behind ID and revision.
	Row []byte
	// Added and Removed are the API keys that Old has not, and New has not.
	Added, Removed []KeyHash
}

// Plan works out what apply makes of a subject, of which old is what there is, or nil. A nil Step says that nothing
// changes.
func Plan(of Ref, old *Subject, by By, apply func(*Subject) error) (*Step, error) {
	p := &problems{}
	p.ref(of)
	by.validate(p)
	if err := errors.Join(p.all...); err != nil {
		return nil, err
	}
	next := Subject{Domain: of.Domain, Name: of.Name}
	if old != nil {
		next = old.Clone()
	}
	revision := next.Revision
	if err := apply(&next); err != nil {
		return nil, err
	}
	if next.Ref() != of || next.Revision != revision {
		return nil, invalid("name", "a change leaves the domain, the name and the revision alone")
	}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	content, err := next.content()
	if err != nil {
		return nil, err
	}
	if len(content) > MaxRecord {
		return nil, invalid("subject", "everything in it comes to %d bytes: %d are the most; remove what is no longer needed",
			len(content), MaxRecord)
	}
	if old != nil {
		before, err := old.content()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(before, content) {
			return nil, nil //nolint:nilnil // as documented: there is no step
		}
	}
	action := "change"
	if old == nil {
		action = "create"
	}
	s := &Step{Ref: of, Old: old, New: &next, Content: content}
	return s, s.complete(by, action)
}

// PlanDelete works out the deletion of old.
func PlanDelete(old *Subject, by By) (*Step, error) {
	p := &problems{}
	by.validate(p)
	if err := errors.Join(p.all...); err != nil {
		return nil, err
	}
	s := &Step{Ref: old.Ref(), Old: old}
	return s, s.complete(by, "delete")
}

func (s *Step) complete(by By, action string) (err error) {
	none := &Subject{}
	old, next := cmp.Or(s.Old, none), cmp.Or(s.New, none)
	s.Added, s.Removed = keysBeside(next, old), keysBeside(old, next)
	by.Action = cmp.Or(by.Action, action)
	if s.Row, err = encodeRow(s.Ref, by, old, next); err != nil {
		return fmt.Errorf("audit row: %w", err)
	}
	return nil
}

// Keys are the API keys whose owner the step changes.
func (s *Step) Keys() []KeyHash {
	return append(append([]KeyHash(nil), s.Added...), s.Removed...)
}

// keysBeside returns the API keys of a that b has not.
func keysBeside(a, b *Subject) (keys []KeyHash) {
	for i := range a.APIKeys {
		if !b.Lists(a.APIKeys[i].Hash) {
			keys = append(keys, a.APIKeys[i].Hash)
		}
	}
	return keys
}
