package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// fakellm is a running examples/fakellm: the models' APIs, with limits of its own and a ledger of what it served.
type fakellm struct {
	*process
	addr string
}

// served is what a row of fakellm's ledger says of calls and their tokens, and the sum of all rows.
type served struct {
	API, Key, User, Model string

	Requests, Open, Completed, Limited, Overloaded, Failed, Broken, Aborted int64

	Served, Unfinished struct {
		Input      int64 `json:"input_tokens"`
		CacheRead  int64 `json:"cache_read_tokens"`
		CacheWrite int64 `json:"cache_write_tokens"`
		Output     int64 `json:"output_tokens"`
	}
}

// startFakeLLM runs fakellm until the test ends, and returns when it listens.
func startFakeLLM(t testing.TB, flags ...string) *fakellm {
	t.Helper()
	f := &fakellm{addr: freeAddr(t)}
	f.process = start(t, "fakellm", fakellmBinary, append([]string{"--addr", f.addr}, flags...)...)
	f.ready(t, func() error {
		printed, err := os.ReadFile(f.log)
		if err == nil && !strings.Contains(string(printed), "listens") {
			err = fmt.Errorf("it has printed %q", printed)
		}
		return err
	})
	return f
}

// ledger returns what was served since the start, or since the last reset: in all, and by who asked what for which model.
func (f *fakellm) ledger(t testing.TB) (total served, rows []served) {
	t.Helper()
	var balance struct {
		Total served
		Rows  []served
	}
	told := send(t, "http://"+f.addr, request{path: "/fake/ledger"})
	if err := json.Unmarshal([]byte(told.body), &balance); err != nil {
		t.Fatal(err)
	}
	return balance.Total, balance.Rows
}
