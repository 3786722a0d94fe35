package memory_test

import (
	"testing"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

func TestLines(t *testing.T) {
	storetest.RunLines(t, func(t testing.TB, clock *storetest.Clock) store.Store {
		opts := memory.Options{}
		if clock != nil {
			opts.Clock = clock.Now
		}
		return open(t, opts)
	})
}
