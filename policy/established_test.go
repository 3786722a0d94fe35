package policy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
)

// established is one line of testdata/established.jsonl: a random policy, many of them odd on
// purpose, and what envoyproxy/ratelimit (commit f2fb157) made of it: an error, or for each
// descriptor that was looked up the limit that it found and the counter that it would have used.
type established struct {
	Files   []string
	Merge   bool
	Error   string
	Lookups []struct {
		Domain  string
		Entries [][2]string
		Answer  *establishedAnswer
	}
}

type establishedAnswer struct {
	Name, Counter            string
	Replaces                 []string
	Unlimited, Shadow, Quota bool
	Limit                    uint32
	Unit                     Unit
	Metadata                 map[string]any
}

// Established policies mean what they meant, and are refused for the same reasons.
func TestAgreesWithTheEstablishedImplementation(t *testing.T) {
	data, err := os.ReadFile("testdata/established.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	refused, found, line := 0, 0, 0
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line++
		var c established
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprint("line ", line), func(t *testing.T) {
			var sources []Source
			for i, f := range c.Files {
				sources = append(sources, Source{fmt.Sprintf("file%d.yaml", i), []byte(f)})
			}
			p, _, err := Parse(sources, Options{MergeDomains: c.Merge})
			if c.Error != "" {
				refused++
				if err == nil || !strings.Contains(err.Error(), c.Error) {
					t.Errorf("got the error %v\nwant %s", err, c.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range c.Lookups {
				if l.Answer != nil {
					found++
				}
				got := lookUp(p, l.Domain, l.Entries)
				if got != nil && l.Answer != nil && l.Answer.Metadata == nil {
					// Where the key of a metric differs from the path of the rule, metadata got lost there.
					got.Metadata = nil
				}
				if !reflect.DeepEqual(got, l.Answer) {
					t.Errorf("%s %q:\ngot  %+v\nwant %+v", l.Domain, l.Entries, got, l.Answer)
				}
			}
		})
	}
	if refused < 50 || found < 500 {
		t.Errorf("only %d refused policies and %d rules found: the recording is not whole", refused, found)
	}
}

func lookUp(p *Policy, domain string, pairs [][2]string) *establishedAnswer {
	d := p.Domain(domain)
	if d == nil {
		return nil
	}
	var list []Entry
	for _, e := range pairs {
		list = append(list, Entry{e[0], e[1]})
	}
	m, _ := d.Match(list, nil)
	rule := m.Rule
	if rule == nil {
		return nil
	}
	a := &establishedAnswer{
		Name: rule.Name, Replaces: rule.Replaces, Unlimited: rule.Unlimited, Shadow: rule.Shadow, Quota: rule.Quota,
		Limit: rule.RequestsPerUnit, Unit: rule.Unit, Metadata: rule.Metadata,
	}
	if !rule.Unlimited {
		a.Counter = establishedCounter(string(m.Bucket))
	}
	return a
}

// establishedCounter turns the name of a counter into what envoyproxy/ratelimit calls it in the
// window that begins at 0.
func establishedCounter(bucket string) string {
	var name strings.Builder
	unescape := strings.NewReplacer("%25", "%", "%7C", "|", "%3D", "=", "%7B", "{", "%7D", "}")
	parts := strings.Split(bucket, "|")
	name.WriteString(unescape.Replace(parts[0]) + "_")
	for _, p := range parts[1 : len(parts)-1] {
		key, value, _ := strings.Cut(p, "=")
		name.WriteString(unescape.Replace(key) + "_" + unescape.Replace(value) + "_")
	}
	return name.String() + fmt.Sprint(limit.Micros(0))
}
