package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// serveLane serves a policy with a lane in which one call is under way at a time.
func serveLane(t *testing.T) rationv1.AccountingServiceClient {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
domain: llm
descriptors:
  - { key: user, subject: true, limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1_000/365 days } ] }
lanes:
  - { name: one, max_concurrent: 1, max_wait: 60s }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, "--policy", file)
	t.Setenv("RATION_SERVER", p.addrs(t).GRPC)
	t.Setenv("RATION_DOMAIN", "llm")
	return rationv1.NewAccountingServiceClient(connect(t, p.addrs(t).GRPC, insecure.NewCredentials()))
}

// inLine waits until so many calls are in line, with one of its own, which leaves then.
func inLine(t *testing.T, api rationv1.AccountingServiceClient, others int32) {
	t.Helper()
	ctx, leave := context.WithTimeout(t.Context(), patience)
	defer leave()
	stream, err := api.Acquire(ctx, &rationv1.AcquireRequest{
		Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "counts"}}, Wait: &rationv1.Wait{Lane: "one"},
	})
	for err == nil {
		var told *rationv1.AcquireResponse
		if told, err = stream.Recv(); told.GetStanding().GetWaiting() == others+1 {
			return
		}
	}
	t.Fatalf("%d are not in line: %v", others, err)
}

// TestReserveInALane: a call has its turn, or is refused in time, as without a lane.
func TestReserveInALane(t *testing.T) {
	api := serveLane(t)
	const (
		head  = `LIMIT +METER +CAPACITY +USED +HELD +REMAINING +THIS CALL( +RESETS AT)?( +SAYS)?`
		place = `llm\.lanes\.one\.places +concurrency +1 +0 +1 +0 +1.*`
		own   = `llm\.user\.requests .*`
	)
	said := says(t, exitOK, strings.Fields("reserve user=alice --lane one"), `admitted`, `reservation [0-9a-f]{32}, until .*`, head, own, place)
	held := regexp.MustCompile(`reservation ([0-9a-f]+)`).FindStringSubmatch(said)
	says(t, exitRefused, strings.Fields("reserve user=bob --lane one --wait 50ms"),
		`throttled: Waited 0 s, first in line\. .*`, `it fits in .*, or less`, `waited \d+ms in the lane one`, head, place, own)
	says(t, exitRefused, strings.Fields("reserve user=bob --lane one --wait 50ms -o json"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		says(t, exitOK, strings.Fields("reserve user=bob --lane one"), `admitted`, `waited .*s in the lane one`, `reservation .*`, head, own, place)
	}()
	inLine(t, api, 1)
	says(t, exitOK, []string{"release", held[1]}, `settled`, head, own)
	<-done
	for args, want := range map[string]string{
		"--lane oen":           `ration: 127\.0\.0\.1:\d+: wait\.lane: .* did you mean one\?`,
		"--lane one --wait 0s": `ration: 127\.0\.0\.1:\d+: wait\.longest: it is not above 0: .*`,
		"--lane one --dry-run": `ration: --dry-run waits for nothing: leave --lane out`,
	} {
		says(t, exitFailed, strings.Fields("reserve user=bob "+args), want)
	}
}

// TestReserveLeavesTheLine: who is told to end leaves the line, and says whether the place is kept.
func TestReserveLeavesTheLine(t *testing.T) {
	api := serveLane(t)
	says(t, exitOK, strings.Fields("reserve user=alice --lane one -o csv"), `limit,.*`, `.*`, `.*`)
	for args, want := range map[string]string{
		"":             "ration: the call has left the line\n",
		"--key call-1": "ration: the call waits no more: with --key call-1 it has its place in line for 15 s yet\n",
	} {
		c := exec.Command(binary, strings.Fields("reserve user=bob --lane one "+args)...)
		var said strings.Builder
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		inLine(t, api, 1)
		_ = c.Process.Signal(syscall.SIGINT)
		if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != exitFailed || said.String() != want {
			t.Errorf("%v, said %q, want %q", err, &said, want)
		}
		inLine(t, api, 0)
	}
}
