package contract_test

import (
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rationhq/ration/server/contract"
	"github.com/rationhq/ration/store/redis/redistest"
)

var (
	binary  = flag.String("binary", "", "run the cases against this server instead of a freshly built ration")
	column  = flag.String("column", "reference", "with -binary: whose answers to expect, reference or ration")
	checker = flag.String("checker", "", "with -binary: a command that refuses bad policies in a directory, given last")
	record  = flag.Bool("record", false, "with -binary: write the answers of that server into testdata")
)

// TestContract replays the recorded request sequences against ration, with both stores and over both transports.
//
//	go test ./server/contract                                   ration as it is in the working tree
//	go test ./server/contract -binary PATH                      another implementation
//	go test ./server/contract -binary PATH -record              write down what that implementation answers
//	go test ./server/contract -run 'TestContract/.*/.*/.*/B13'  one case
func TestContract(t *testing.T) {
	files, err := contract.Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	runner := &contract.Runner{Target: target(t)}
	stores := []contract.Store{contract.Memory, contract.Redis}
	if *binary != "" {
		stores = stores[1:] // Not every implementation has a memory store.
	}
	if *record {
		runner.Recorder = &contract.Recorder{}
	}
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			for _, transport := range []contract.Transport{contract.GRPC, contract.JSON} {
				t.Run(string(transport), func(t *testing.T) { runAll(t, runner, files, store, transport) })
			}
		})
	}
	t.Run("policies", func(t *testing.T) { runPolicies(t, runner, files) })

	if *record {
		changed, err := runner.Recorder.Write(files)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range changed {
			t.Logf("recorded %s", path)
		}
	}
}

func runAll(
	t *testing.T, runner *contract.Runner, files []*contract.File, store contract.Store, transport contract.Transport,
) {
	for _, group := range contract.Groups(files, store, transport) {
		t.Run(group.Name, func(t *testing.T) {
			t.Parallel()
			results, err := runner.RunGroup(t.Context(), host(t), group, store, transport)
			for _, r := range results {
				t.Run(r.Case.Name, func(t *testing.T) {
					for _, m := range r.Mismatches {
						t.Error(m)
					}
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func runPolicies(t *testing.T, runner *contract.Runner, files []*contract.File) {
	var policies []*contract.Policy
	for _, f := range files {
		policies = append(policies, f.Policies...)
	}
	results, err := runner.RunPolicies(t.Context(), host(t), policies)
	for _, p := range policies {
		t.Run(p.Name, func(t *testing.T) {
			for _, m := range results[p] {
				t.Error(m)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func target(t *testing.T) contract.Target {
	if *binary != "" {
		return contract.Target{
			Binary: *binary, Column: contract.Column(*column), Checker: strings.Fields(*checker),
		}
	}
	if *record {
		t.Fatal("-record needs -binary: ration's own answers are not what ration is measured by")
	}
	ration := build(t)
	return contract.Target{
		Binary:     ration,
		Args:       []string{"serve", "--admin-addr", ""},
		MemoryArgs: []string{"--store", "memory"},
		Env:        map[string]string{"RATION_METRICS_ADDR": "127.0.0.1:0"},
		Column:     contract.Ration,
		Checker:    []string{ration, "check"},
	}
}

func build(t *testing.T) string {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "ration")
	cmd := exec.Command("go", "build", "-o", out, "./cmd/ration")
	cmd.Dir = strings.TrimSpace(string(root))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/ration: %v\n%s", err, text)
	}
	return out
}

// host gives a run what it needs, for as long as the test lasts.
func host(t *testing.T) contract.Host {
	return contract.Host{
		TempDir: t.TempDir,
		StartRedis: func() contract.RedisServer {
			s := redistest.Start(t)
			return contract.RedisServer{Addr: s.Addr, Stop: s.Stop}
		},
	}
}
