package subject

import (
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Ref names a subject: the domain, and the value of the descriptor key that says who pays. Any other name is another
// subject, whatever the key is.
type Ref struct{ Domain, Name string }

// Encode writes the ref as one string, which no other ref has: "3:llmalice". Those of one domain are in the order of
// their names.
func (r Ref) Encode() string { return strconv.Itoa(len(r.Domain)) + ":" + r.Domain + r.Name }

// ParseRef reads what [Ref.Encode] writes.
func ParseRef(text string) (r Ref, ok bool) {
	length, rest, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(length, 10, 16)
	if err != nil || int(n) > len(rest) {
		return Ref{}, false
	}
	r = Ref{rest[:n], rest[n:]}
	return r, r.Encode() == text
}

// Shard returns the part of a directory in which a subject is. It is fixed: with another one subjects would not be
// found.
func (r Ref) Shard() uint8 {
	var d xxhash.Digest
	d.ResetWithSeed(uint64(len(r.Domain)))
	_, _ = d.WriteString(r.Domain)
	_, _ = d.WriteString(r.Name)
	return uint8(d.Sum64() % Shards)
}

// CanExist reports whether there can be a subject of that name: whoever has another is known to no directory.
func (r Ref) CanExist() bool {
	p := &problems{}
	p.ref(r)
	return len(p.all) == 0
}
