package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The official SDKs for Python understand everything: answers, streams, errors. The usage that they read is what the
// ledger says was served, and where the service limits them they wait as they are told and succeed.
func TestPythonSDKs(t *testing.T) {
	f := sdkFake(t)
	used := runSDKs(t, "../../.cache/sdks/python/bin/python", "testdata/sdks.py", f.http.URL)
	checkUsed(t, f, "python", used, map[string]int64{"messages": 3, "chat": 3, "responses": 3})
	patient := map[string]counts{}
	for _, row := range f.ledger.balance().Rows {
		if row.Key == "patient" {
			patient[row.API] = row.counts
		}
	}
	for _, api := range []string{"messages", "responses"} {
		// The second call was told to wait once.
		if c := patient[api]; c.Completed != 2 || c.Limited != 1 {
			t.Errorf("of the calls to %s that wait the ledger says %+v", api, c)
		}
	}
}

// So do those for TypeScript.
func TestTypeScriptSDKs(t *testing.T) {
	f := sdkFake(t)
	directory, err := filepath.Abs("../../.cache/sdks/node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(directory, "node_modules")); err != nil {
		t.Fatalf("there are no SDKs: run `make test-deps`, which installs them (%v)", err)
	}
	used := runSDKs(t, "node", "testdata/sdks.mjs", directory, f.http.URL)
	checkUsed(t, f, "typescript", used, map[string]int64{"messages": 2, "chat": 2, "responses": 2})
}

// sdkFake is a server of which two requests of 60,000 tokens cannot be had at once: the second is told to wait for 600
// milliseconds. However slow the caller is, it comes too early once and not twice, since the clock moves on with every
// refusal and not otherwise.
func sdkFake(t *testing.T) *fake {
	t.Helper()
	o := options{limitOptions: limitOptions{InputTPM: 6_000_000, TPM: 6_000_000, Burst: 600 * time.Millisecond}}
	return newFakeBy(t, o, func(f *fake) time.Duration {
		return time.Duration(f.ledger.balance().Total.Limited) * time.Second
	})
}

// runSDKs runs a script and returns what it prints: tokens by API and kind.
func runSDKs(t *testing.T, program string, args ...string) map[string]map[string]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v (where it is not installed, `make test-deps` does that)\n%s", program, err, &complaints)
	}
	return decode[map[string]map[string]int64](t, string(out))
}

// checkUsed compares what the SDKs read with the completed calls of a key in the ledger.
func checkUsed(t *testing.T, f *fake, key string, used map[string]map[string]int64, calls map[string]int64) {
	t.Helper()
	f.total(t)
	for _, row := range f.ledger.balance().Rows {
		if row.Key != key || row.Model == "m" {
			continue
		}
		served := map[string]int64{
			"input_tokens": row.Served.Input, "cache_read_tokens": row.Served.CacheRead,
			"output_tokens": row.Served.Output, "reasoning_tokens": row.Served.Reasoning,
		}
		if _, said := used[row.API]["cache_write_tokens"]; said {
			served["cache_write_tokens"] = row.Served.CacheWrite
		}
		if !maps.Equal(served, used[row.API]) || row.Completed != calls[row.API] {
			t.Errorf("%s: the ledger says %v in %d calls, the SDK %v in %d",
				row.API, served, row.Completed, used[row.API], calls[row.API])
		}
		delete(calls, row.API)
	}
	if left := slices.Sorted(maps.Keys(calls)); len(left) > 0 {
		t.Errorf("the ledger has no row of %v", left)
	}
}
