package redis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis/redistest"
)

// Who has used most is found wherever they lie: hundreds in one shard, or each in another one; also those with the same
// total, by name.
func TestTopOfShards(t *testing.T) {
	s, err := New(Options{URL: redistest.Start(t).URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	const at = 1_763_726_400 * limit.Second
	var want []store.Ranked
	crowded, elsewhere := 0, 0
	for n := 0; crowded < 400; n++ {
		owner := fmt.Append(nil, "owner ", n)
		if shard := shardOfName(owner); shard < 2 {
			crowded++
		} else if elsewhere++; elsewhere > 300 {
			continue
		}
		want = append(want, store.Ranked{Owner: owner, Total: 1 + rand.Int64N(40)})
	}
	var all sync.WaitGroup
	for part := range 32 {
		all.Go(func() {
			for i := part; i < len(want); i += 32 {
				row := store.Row{
					Owner: want[i].Owner, Group: []byte("g"), At: at, Add: []store.Addition{{Column: 5, Amount: want[i].Total}}, Rank: 1 << 5,
					Keep: store.Retain{OwnerDays: store.MaxRetain},
				}
				if err := s.Apply(t.Context(), &store.Step{Rows: []store.Row{row}}, &store.Outcome{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	slices.SortFunc(want, inOrder)
	for _, most := range []int{1, 7, 8, 9, 33, 100, 300, len(want), store.MaxTop} {
		got, err := s.Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: 5, In: at, Most: most})
		if err != nil || len(got) != min(most, len(want)) {
			t.Fatalf("the first %d: %d, %v", most, len(got), err)
		}
		for i := range got {
			if string(got[i].Owner) != string(want[i].Owner) || got[i].Total != want[i].Total {
				t.Fatalf("of the first %d, number %d is %s with %d, want %s with %d",
					most, i, got[i].Owner, got[i].Total, want[i].Owner, want[i].Total)
			}
		}
	}
}
