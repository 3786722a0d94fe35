package policy

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"pgregory.net/rapid"
)

func TestBucketNames(t *testing.T) {
	for _, c := range []struct {
		domain  string
		entries []Entry
		window  limit.Micros
		want    string
	}{
		{"llm", []Entry{{"user", "alice"}, {"model", "x"}}, Minute.Window(), "llm|user=alice|model=x|60s"},
		{"llm", nil, Second.Window(), "llm|1s"},
		{"llm", []Entry{{"user", ""}}, Day.Window(), "llm|user=|86400s"},
		{"a|b", []Entry{{"k=", "100%"}, {"{", "}"}}, Hour.Window(), "a%7Cb|k%3D=100%25|%7B=%7D|3600s"},
		{"d", []Entry{{"path", "/a b/ü\xff"}}, Hour.Window(), "d|path=/a b/ü\xff|3600s"},
		{"d", []Entry{{"a\nb", "\x00\x1b[2J\x7f\t"}}, Hour.Window(), "d|a%0Ab=%00%1B[2J%7F%09|3600s"},
		{"d", []Entry{{"k", "\u0080\u009b\u00a0\u00ff\u2028\xc2"}}, Hour.Window(), "d|k=%C2%80%C2%9B\u00a0\u00ff\u2028\xc2|3600s"},
		{"d", nil, 1_500_000, "d|1500000us"},
	} {
		if got := string(AppendBucket([]byte("before "), c.domain, c.entries, c.window)); got != "before "+c.want {
			t.Errorf("%q %q: %q, want %q", c.domain, c.entries, got, c.want)
		}
	}
}

// bucketArgs are what a counter belongs to.
type bucketArgs struct {
	domain  string
	entries []Entry
	window  limit.Micros
}

// A name can be read back, and therefore no two counters have the same one.
func TestBucketNamesAreInjective(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte("a|=%{}7C3D_.0s\x00\n\xc2\x80\x9b\xff")), 0, 6).Draw(t, "text"))
	})
	rapid.Check(t, func(t *rapid.T) {
		want := bucketArgs{domain: text.Draw(t, "domain")}
		for range rapid.IntRange(0, 4).Draw(t, "entries") {
			want.entries = append(want.entries, Entry{text.Draw(t, "key"), text.Draw(t, "value")})
		}
		want.window = limit.Micros(rapid.Int64Range(1, limit.MaxAmount/int64(limit.Second)).Draw(t, "window"))
		if rapid.Bool().Draw(t, "in seconds") {
			want.window *= limit.Second
		}
		name := string(AppendBucket(nil, want.domain, want.entries, want.window))
		if got := readBucket(t, name); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q belongs to %#v, but reads as %#v", name, want, got)
		}
	})
}

// readBucket reads a name by the rule that the comment of AppendBucket gives.
func readBucket(t *rapid.T, name string) (args bucketArgs) {
	parts := strings.Split(name, "|")
	args.domain = unescapeBucket(t, parts[0])
	for _, p := range parts[1 : len(parts)-1] {
		key, value, ok := strings.Cut(p, "=")
		if !ok {
			t.Fatalf("no = in %q", p)
		}
		args.entries = append(args.entries, Entry{unescapeBucket(t, key), unescapeBucket(t, value)})
	}
	var n limit.Micros
	var unit string
	if _, err := fmt.Sscanf(parts[len(parts)-1], "%d%s", &n, &unit); err != nil {
		t.Fatal(err)
	}
	if args.window = n; unit == "s" {
		args.window *= limit.Second
	}
	return args
}

func unescapeBucket(t *rapid.T, s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		x, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			t.Fatal(err)
		}
		b.Write(x)
		i += 2
	}
	return b.String()
}
