package engine

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

func TestNotes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.String()
		number := rapid.Int64Range(0, limit.MaxAmount)
		n := note{
			caller:   Caller{Domain: text.Draw(rt, "domain"), Model: text.Draw(rt, "model"), Tier: text.Draw(rt, "tier")},
			reserved: limit.Micros(number.Draw(rt, "reserved")), left: rapid.Bool().Draw(rt, "left"), tier: text.Draw(rt, "admitted in"),
			clamped: rapid.Bool().Draw(rt, "clamped"),
			estimate: price.Usage{
				Input: number.Draw(rt, "input"), CacheRead: number.Draw(rt, "read"),
				CacheWrite: number.Draw(rt, "write"), Output: number.Draw(rt, "output"),
			},
		}
		for range rapid.IntRange(0, 5).Draw(rt, "attributes") {
			n.caller.Attributes = append(n.caller.Attributes, policy.Entry{Key: text.Draw(rt, "key"), Value: text.Draw(rt, "value")})
		}
		if rapid.Bool().Draw(rt, "priced") {
			n.price.Known, n.price.Assumed = true, rapid.Bool().Draw(rt, "assumed")
			n.price.Input, n.price.Output = price.Rate(number.Draw(rt, "in")), price.Rate(number.Draw(rt, "out"))
			n.price.Model, n.price.Version = text.Draw(rt, "entry"), text.Draw(rt, "book")
		}
		if n.charged = rapid.Bool().Draw(rt, "charged"); n.charged {
			n.settled = Price{Known: rapid.Bool().Draw(rt, "settled by a price"), Assumed: rapid.Bool().Draw(rt, "or the dearest")}
			if n.settled.Known {
				n.settled.CacheRead, n.settled.Model = price.Rate(number.Draw(rt, "settled at")), text.Draw(rt, "settled by")
			}
		}
		written := n.append(nil)
		read, err := readNote(written)
		if err != nil || !reflect.DeepEqual(read, n) {
			rt.Fatalf("%v: wrote %+v, read %+v", err, n, read)
		}
		for cut := range written {
			if _, err := readNote(written[:cut]); err == nil {
				rt.Fatalf("read the first %d of %d bytes", cut, len(written))
			}
		}
	})
}

func FuzzReadNote(f *testing.F) {
	n := note{caller: Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: "alice"}}}, price: Price{Known: true}}
	f.Add(n.append(nil))
	f.Add([]byte{noteVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := readNote(b)
		if err != nil {
			return
		}
		again, err := readNote(n.append(nil))
		if err != nil || !bytes.Equal(again.append(nil), n.append(nil)) {
			t.Errorf("%q was read as %+v, and its note as %+v (%v)", b, n, again, err)
		}
	})
}
