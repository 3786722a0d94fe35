package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// TestReload edits the policy of a server that runs: good, bad, and good again.
func TestReload(t *testing.T) {
	file := policyFile(t, 5)
	p := serve(t, "--policy", file)
	addr := p.addrs(t)
	client := limiter(t, addr.GRPC)
	conn := connect(t, addr.GRPC, insecure.NewCredentials())
	if got := limitNow(t, client, request("d", "user", "a")); got != 5 {
		t.Fatalf("the limit is %d, want 5", got)
	}

	writePolicy(t, file, 6)
	waitForLimit(t, p, 6)

	if err := os.WriteFile(file, []byte("domain: d\ndescriptors:\n- key: user\n  rate_limit: {unit: eon}\n- value: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	problems := p.waitForLog(t, "the new policy is not used, the one before stays in force", 2)
	for i, want := range []string{file + ":4:22: invalid rate limit unit 'eon'", file + ":5:3: descriptor has empty key"} {
		if problems[i].Level != "ERROR" || !strings.HasPrefix(problems[i].Problem, want) {
			t.Errorf("line %d of the log is %+v, want the error %s", i+1, problems[i], want)
		}
	}
	if got := limitNow(t, client, request("d", "user", "b")); got != 6 {
		t.Errorf("the limit after a bad edit is %d, want 6 as before", got)
	}
	if got := healthOf(t, conn); got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("the health after a bad edit is %v, want SERVING", got)
	}
	detail, err := rationv1.NewStatusServiceClient(conn).GetHealth(t.Context(), &rationv1.GetHealthRequest{})
	if err != nil || len(detail.GetReloadFailure().GetErrors()) != 2 {
		t.Errorf("the status service tells of %v (%v), want both errors", detail.GetReloadFailure(), err)
	}

	writePolicy(t, file, 7)
	waitForLimit(t, p, 7)
	detail, err = rationv1.NewStatusServiceClient(conn).GetHealth(t.Context(), &rationv1.GetHealthRequest{})
	if err != nil || detail.GetReloadFailure() != nil {
		t.Errorf("the status service still tells of %v (%v)", detail.GetReloadFailure(), err)
	}
	_, metrics := get(t, "http://"+addr.Metrics+"/metrics")
	for _, want := range []string{
		`ration_policy_reloads_total{result="success"} 3`, `ration_policy_reloads_total{result="failure"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	p.stop(t)
}

func waitForLimit(t testing.TB, p *process, want uint32) {
	t.Helper()
	client := limiter(t, p.addrs(t).GRPC)
	eventually(t, fmt.Sprintf("the limit is %d", want), func() error {
		if got := limitNow(t, client, request("d", "user", "polled")); got != want {
			return fmt.Errorf("it is %d", got)
		}
		return nil
	})
}

// TestSIGHUP reads the policy again, even if it has not changed, and ends nothing.
func TestSIGHUP(t *testing.T) {
	p := serve(t, "--policy", policyFile(t, 5))
	client := limiter(t, p.addrs(t).GRPC)
	ask(t, client, request("d", "user", "a"))
	p.signal(t, syscall.SIGHUP)
	p.waitForLog(t, "policy in force", 2)
	if got := ask(t, client, request("d", "user", "a")).GetStatuses()[0].GetLimitRemaining(); got != 3 {
		t.Errorf("%d remain after SIGHUP, want 3: counters are kept", got)
	}
	p.stop(t)
}

// TestSIGHUPOnTheExample: there is nothing to read again, and that ends nothing either.
func TestSIGHUPOnTheExample(t *testing.T) {
	p := serve(t)
	client := limiter(t, p.addrs(t).GRPC)
	p.signal(t, syscall.SIGHUP)
	p.waitForLog(t, "SIGHUP", 1)
	if got := limitNow(t, client, request("quickstart", "user", "a")); got != 5 {
		t.Errorf("the example's limit is %d, want 5", got)
	}
	p.stop(t)
}

// TestRuntimeDirectory is the layout of envoyproxy/ratelimit in Kubernetes: a ConfigMap, with its
// symbolic links, that is replaced as a whole; files of any name count.
func TestRuntimeDirectory(t *testing.T) {
	root := t.TempDir()
	config := filepath.Join(root, "ratelimit", "config")
	version := func(name string, perYear int) {
		dir := filepath.Join(config, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writePolicy(t, filepath.Join(dir, "limits"), perYear)
		next := filepath.Join(config, "..data_next")
		if err := os.Symlink(name, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(config, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", 5)
	if err := os.Symlink("..data/limits", filepath.Join(config, "limits")); err != nil {
		t.Fatal(err)
	}
	p := serveWith(t, map[string]string{
		"RUNTIME_ROOT": root, "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false", "RUNTIME_IGNOREDOTFILES": "true",
	})
	waitForLimit(t, p, 5)
	version("..2", 6)
	waitForLimit(t, p, 6)
	p.stop(t)
}
