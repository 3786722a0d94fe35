package engine

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// labelled returns an opening of a limit, for its label.
func labelled(t *testing.T, domain, path, owner string, zone *time.Location) *opening {
	t.Helper()
	p, _, err := policy.Parse([]policy.Source{{Data: []byte(
		"domain: d\nlimits: [ { name: n, meter: cost, algorithm: calendar, limit: $50/month, warn_at: [ 80%, 100% ] } ]")}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := *p.Limits()[0]
	l.Domain, l.Path = domain, path
	return &opening{limit: &l, quantity: l.For(0), match: &policy.Match{Owner: []byte(owner)}, zone: zone}
}

// A label says later what was watched, whatever the policy says then; one for each limit and subject, and none is longer
// than the store takes.
func TestLabels(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 70_000)
	seen := map[string]string{}
	for name, o := range map[string]*opening{
		"one":                 labelled(t, "llm", "llm.user.spend", "llm|user=alice", berlin),
		"another zone":        labelled(t, "llm", "llm.user.spend", "llm|user=alice", time.UTC),
		"another subject":     labelled(t, "llm", "llm.user.spend", "llm|user=bob", berlin),
		"another limit":       labelled(t, "llm", "llm.user.spendx", "llm|user=alice", berlin),
		"moved between":       labelled(t, "llm", "llm.user.spendl", "lm|user=alice", berlin),
		"a long subject":      labelled(t, "llm", "llm.user.spend", "llm|user="+long, berlin),
		"another long":        labelled(t, "llm", "llm.user.spend", "llm|user="+long+"y", berlin),
		"all of it long":      labelled(t, long, long, long, berlin),
		"all of it long, too": labelled(t, long, long, long+"z", berlin),
	} {
		b := appendLabelFor(o)
		if len(b) > store.MaxLabel {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%s and %s have the same label", name, other)
		}
		seen[string(b)] = name
		l, err := readLabel(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if l.clipped != strings.Contains(name, "long") {
			t.Errorf("%s: clipped %v", name, l.clipped)
		}
		for n := range b {
			if _, err := readLabel(b[:n]); err == nil {
				t.Errorf("%s: %d bytes of %d are a label, too", name, n, len(b))
				break
			}
		}
	}
	if _, err := readLabel(bytes.Replace(appendLabelFor(labelled(t, "a", "b", "c", berlin)), []byte{labelVersion}, []byte{labelVersion + 1}, 1)); err == nil {
		t.Error("a label of another version is read")
	}

	e := thresholdEvent(&store.Event{
		ID: "ab", At: limit.At(time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)), Which: 0, Threshold: 40_000_000_000, Used: 40_120_000_000, Limit: 50_000_000_000,
		End: limit.At(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)), Label: appendLabelFor(labelled(t, "llm", "llm.user.spend", "llm|user=a%3Dlice", berlin)),
	})
	if want := "You have used 80 % of your monthly budget of $50.00: $40.12. It resets on 1 December (Europe/Berlin)."; e.Message != want {
		t.Errorf("it says %q, want %q", e.Message, want)
	}
	if e.Domain != "llm" || e.Subject() != "user=a=lice" || e.Path[0] != (policy.Entry{Key: "user", Value: "a=lice"}) || e.Limit != "llm.user.spend" ||
		e.Percent != 80 || e.Capacity != 50_000_000_000 || e.ID != "ab" {
		t.Errorf("%+v", e)
	}
	e = thresholdEvent(&store.Event{ID: "ab", Used: 9, Threshold: 8, Limit: 10, Label: []byte("?")})
	if e.Domain != "" || e.Used != 9 || e.Percent != 80 || e.Message == "" {
		t.Errorf("of an unknown label: %+v", e)
	}
}

func appendLabelFor(o *opening) []byte { return appendLabel(nil, o, o.quantity.WarningShares()) }
