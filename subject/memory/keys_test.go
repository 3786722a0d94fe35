package memory

import (
	"testing"

	"github.com/rationhq/ration/subject"
)

// Keys that are no longer anybody's take no memory, nor do domains without subjects.
func TestNothingIsLeft(t *testing.T) {
	d := New(Options{})
	of, by := subject.Ref{Domain: "llm", Name: "alice"}, subject.By{Actor: "root", Reason: "a test"}
	for i := range byte(10) {
		_, err := d.Change(t.Context(), of, by, func(s *subject.Subject) error {
			s.APIKeys = []subject.APIKey{{Hash: subject.KeyHash{i + 1}}}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(d.keys) != 1 {
		t.Errorf("one API key is left, and %d are remembered", len(d.keys))
	}
	if _, err := d.Delete(t.Context(), of, by); err != nil {
		t.Fatal(err)
	}
	if len(d.keys) != 0 || len(d.domains) != 0 {
		t.Errorf("nobody is left, and %d API keys and %d domains are remembered", len(d.keys), len(d.domains))
	}
}
