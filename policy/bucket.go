package policy

import (
	"net/url"
	"strconv"

	"github.com/rationhq/ration/limit"
)

// AppendBucket appends the name of the counter that belongs to (domain, entries) with the given
// window: `llm|user=alice|model=x|60s`.
//
// The name is injective: different arguments have different names, so that no caller can forge the
// counter of another. To read one, split it at '|' and the middle parts at '=', then replace %XX by
// the byte XX. Entries are not kept.
func AppendBucket(b []byte, domain string, entries []Entry, window limit.Micros) []byte {
	b = appendEscaped(b, domain)
	for _, e := range entries {
		b = appendEntry(b, e.Key, e.Value)
	}
	return appendWindow(b, window)
}

func appendEntry(b []byte, key, value string) []byte {
	b = append(b, '|')
	b = appendEscaped(b, key)
	b = append(b, '=')
	return appendEscaped(b, value)
}

// appendWindow writes a window in seconds, or in microseconds where it is no whole number of them.
func appendWindow(b []byte, window limit.Micros) []byte {
	b = append(b, '|')
	if window%limit.Second != 0 {
		return append(strconv.AppendInt(b, int64(window), 10), "us"...)
	}
	return append(strconv.AppendInt(b, int64(window/limit.Second), 10), 's')
}

// appendEscaped appends s with the bytes that structure a name percent-encoded. Braces are among
// them because they choose the slot of a key in Redis Cluster, and a caller shall not choose it; so are
// control characters, by which a list of keys, a key a line, would say what a caller wants, to a shell or
// a terminal.
func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	done := 0
	for i := range len(s) {
		if c := s[i]; escaped[c] || isC1(s, i) || i > 0 && isC1(s, i-1) {
			b = append(b, s[done:i]...)
			b = append(b, '%', hex[c>>4], hex[c&15])
			done = i + 1
		}
	}
	return append(b, s[done:]...)
}

// unescape reads what appendEscaped writes.
func unescape(s string) string {
	plain, err := url.PathUnescape(s)
	if err != nil {
		return s // not of that kind
	}
	return plain
}

// escaped are the bytes that are percent-encoded wherever they stand.
var escaped = func() (table [256]bool) {
	for _, c := range "%|={}\x7f" {
		table[c] = true
	}
	for c := range ' ' {
		table[c] = true
	}
	return table
}()

// isC1 says that one of U+0080 to U+009F begins at i: control characters of two bytes.
func isC1(s string, i int) bool {
	return s[i] == 0xC2 && i+1 < len(s) && s[i+1] >= 0x80 && s[i+1] <= 0x9F
}
