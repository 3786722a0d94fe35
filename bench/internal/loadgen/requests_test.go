package loadgen

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
)

// oneDescriptor is the mix of most tests.
func oneDescriptor(t *testing.T, keys int) Mix {
	t.Helper()
	descriptors, err := DefaultDescriptors(1)
	if err != nil {
		t.Fatal(err)
	}
	return Mix{Domain: "bench", Descriptors: descriptors, Keys: keys}
}

func encode(t *testing.T, mix Mix) *requests {
	t.Helper()
	all, err := mix.encode()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRequestIsAGRPCMessageWithTheDescriptorsOfItsKey(t *testing.T) {
	mix := Mix{Domain: "shop", Descriptors: []string{"user={key}", "plan=free,user={key}"}, Keys: 3}
	question := encode(t, mix).byKey[2].message

	if compressed, length := question[0], binary.BigEndian.Uint32(question[1:]); compressed != 0 || int(length) != len(question)-5 {
		t.Errorf("prefix %v before a message of %d bytes", question[:5], len(question)-5)
	}
	var message rlsv3.RateLimitRequest
	if err := proto.Unmarshal(question[5:], &message); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, descriptor := range message.Descriptors {
		var entries []string
		for _, entry := range descriptor.Entries {
			entries = append(entries, entry.Key+"="+entry.Value)
		}
		got = append(got, strings.Join(entries, ","))
	}
	want := "user=k0000002 plan=free,user=k0000002"
	if message.Domain != "shop" || strings.Join(got, " ") != want {
		t.Errorf("domain %q, descriptors %q; want shop, %q", message.Domain, got, want)
	}
}

func TestKeysAreSpreadAsAsked(t *testing.T) {
	tests := []struct {
		name                string
		keys, hotKeys       int
		hotShare            float64
		hot, coldEachAtMost float64 // shares of the requests
	}{
		{"uniform", 10, 0, 0, 0, 0.12},
		{"one hot key takes all", 10, 1, 1, 1, 0},
		{"two hot keys take nine of ten", 12, 2, 0.9, 0.9, 0.012},
		{"every key is hot", 10, 10, 1, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			mix := oneDescriptor(t, test.keys)
			mix.HotKeys, mix.HotShare = test.hotKeys, test.hotShare
			all := encode(t, mix)
			index := make(map[*request]int)
			for i, question := range all.byKey {
				index[question] = i
			}

			const n = 100_000
			counts := make([]float64, test.keys)
			picker := all.picker(1, 0)
			for range n {
				counts[index[picker.next()]]++
			}

			var hot, coldest float64 = 0, 0
			for i, count := range counts {
				if i < test.hotKeys {
					hot += count / n
				} else {
					coldest = max(coldest, count/n)
				}
			}
			if math.Abs(hot-test.hot) > 0.01 || coldest > test.coldEachAtMost {
				t.Errorf("share of the hot keys %.3f, of the busiest other key %.3f; want %.3f, at most %.3f",
					hot, coldest, test.hot, test.coldEachAtMost)
			}
		})
	}
}

func TestConnectionsPickDifferently(t *testing.T) {
	all := encode(t, oneDescriptor(t, 1000))
	first, again, other := all.picker(7, 0), all.picker(7, 0), all.picker(7, 1)
	same, different := 0, 0
	for range 100 {
		question := first.next()
		if question == again.next() {
			same++
		}
		if question != other.next() {
			different++
		}
	}
	if same != 100 || different < 90 {
		t.Errorf("of 100 choices, %d repeated with the same seed, %d differed on another connection", same, different)
	}
}

func TestImpossibleMixesAreRefused(t *testing.T) {
	tests := []struct {
		want   string
		change func(*Mix)
	}{
		{"at least one descriptor", func(m *Mix) { m.Descriptors = nil }},
		{"want key=value", func(m *Mix) { m.Descriptors = []string{"user"} }},
		{"want key=value", func(m *Mix) { m.Descriptors = []string{"=x"} }},
		{"at least 1", func(m *Mix) { m.Keys = 0 }},
		{"11 hot keys", func(m *Mix) { m.HotKeys, m.HotShare = 11, 1 }},
		{"must be from 0 to 1", func(m *Mix) { m.HotKeys, m.HotShare = 1, 1.5 }},
		{"without hot keys", func(m *Mix) { m.HotShare = 0.5 }},
		{"all keys are hot", func(m *Mix) { m.HotKeys, m.HotShare = 10, 0.5 }},
	}
	for _, test := range tests {
		mix := oneDescriptor(t, 10)
		test.change(&mix)
		if _, err := mix.encode(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %q", mix, err, test.want)
		}
	}
}

func TestPlaceholdersOfDescriptors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"user={key}", "user=k0000012"},
		{"user={key},path=/api/{key%10}/x", "user=k0000012 path=/api/2/x"},
		{"user={key},ration.request={id}", "user=k0000012 ration.request=abc"},
		{"user={key},ration.meter=tokens hits=500", "user=k0000012 ration.meter=tokens, 500 hits"},
		{"user={key} hits=0", "user=k0000012, 0 hits"},
	}
	for _, test := range tests {
		descriptor, err := subject{key: "k0000012", number: 12, id: "abc"}.descriptor(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if got := describe(descriptor); got != test.want {
			t.Errorf("%s: got %q, want %q", test.text, got, test.want)
		}
	}
	for _, text := range []string{"a={key%}", "a={key%0}", "a={key%x}", "a={key%1", "a=b hits=many", "a=b hits=-1"} {
		if _, err := (subject{}).descriptor(text); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

func describe(descriptor *commonv3.RateLimitDescriptor) string {
	var entries []string
	for _, entry := range descriptor.Entries {
		entries = append(entries, entry.Key+"="+entry.Value)
	}
	text := strings.Join(entries, " ")
	if descriptor.HitsAddend != nil {
		text += fmt.Sprintf(", %d hits", descriptor.HitsAddend.Value)
	}
	return text
}

func TestIDsArePutIntoTheEncodedRequest(t *testing.T) {
	mix := Mix{Domain: "a", Descriptors: []string{"id={id},user={key}", "{id}={id}x", "id={id}"}, Keys: 1}
	question := encode(t, mix).byKey[0]
	before := string(question.message)

	var message rlsv3.RateLimitRequest
	if err := proto.Unmarshal(question.appendTo(nil, 0x0123456789abcdef, "")[prefixLength:], &message); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, descriptor := range message.Descriptors {
		got = append(got, describe(descriptor))
	}
	// Keys have no placeholders.
	want := "id=0123456789abcdef user=k0000000; {id}=0123456789abcdefx; id=0123456789abcdef"
	if strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if string(question.message) != before {
		t.Error("the request itself has changed, which other connections may be sending")
	}
}
