package subjecttest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/subject"
)

// model is a directory in a few lines.
type model map[subject.Ref]subject.Subject

func (m model) owner(key subject.KeyHash) (of subject.Ref) {
	for _, s := range m {
		if s.Lists(key) {
			return s.Ref()
		}
	}
	return of
}

// Random operations, each on the next server, leave what they leave in a map.
func testModel(t *testing.T, open Open) {
	all := open(t)
	calls := 0
	next := func() subject.Directory {
		calls++
		return all[calls%len(all)]
	}
	rapid.Check(t, func(r *rapid.T) {
		domain := fmt.Sprint("model ", calls) // each history has subjects of its own
		m := model{}
		keys := []subject.KeyHash{NewKey(), NewKey(), NewKey()}
		floor := map[subject.Ref]uint64{}
		for range rapid.IntRange(1, 20).Draw(r, "operations") {
			of := subject.Ref{Domain: domain, Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "name")}
			key := rapid.SampledFrom(keys).Draw(r, "key")
			old, there := m[of]
			switch rapid.IntRange(0, 4).Draw(r, "what") {
			case 0:
				found, err := next().Delete(t.Context(), of, by)
				if err != nil || found != there {
					r.Fatalf("delete %v: found %v, %v, want %v", of, found, err, there)
				}
				if there {
					floor[of] = old.Revision + 1
				}
				delete(m, of)
			case 1, 2, 3:
				apply := rapid.SampledFrom([]func(*subject.Subject) error{
					setTier("x"), setTier("y"), addKey(key), addKey(key), dropKeys, become(subject.Subject{}),
				}).Draw(r, "change")
				want := old.Clone()
				want.Domain, want.Name = of.Domain, of.Name
				_ = apply(&want)
				got, err := next().Change(t.Context(), of, by, apply)
				if owner := m.owner(key); want.Lists(key) && owner != (subject.Ref{}) && owner != of {
					if !errors.Is(err, subject.ErrKeyTaken) {
						r.Fatalf("change %v: %v, want ErrKeyTaken", of, err)
					}
					continue
				}
				if err != nil {
					r.Fatalf("change %v: %v", of, err)
				}
				switch same := there && reflect.DeepEqual(clean(want), clean(old)); {
				case same && got.Revision == old.Revision:
				case !same && there && got.Revision == old.Revision+1:
				case !there && got.Revision > floor[of]:
				default:
					r.Fatalf("change %v: revision %d after %d, and %d deleted", of, got.Revision, old.Revision, floor[of])
				}
				want.Revision = got.Revision
				if !reflect.DeepEqual(clean(got), clean(want)) {
					r.Fatalf("change %v: %+v, want %+v", of, got, want)
				}
				m[of] = want
			}
			if owner := findByKey(t, next(), key); owner != m.owner(key) {
				r.Fatalf("a key is that of %v, want %v", owner, m.owner(key))
			}
			s, found := find(t, next(), of)
			if want, there := m[of]; found != there || found && !reflect.DeepEqual(clean(s), clean(want)) {
				r.Fatalf("found %v %+v, want %v %+v", found, s, there, want)
			}
		}
		list, err := next().List(t.Context(), domain, "", 10)
		if err != nil || len(list) != len(m) {
			r.Fatalf("%d are listed, %v, want %d", len(list), err, len(m))
		}
	})
}

// clean makes no difference between none and empty.
func clean(s subject.Subject) subject.Subject {
	if len(s.APIKeys) == 0 {
		s.APIKeys = nil
	}
	return s
}
