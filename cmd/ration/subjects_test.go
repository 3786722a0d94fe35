package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/store/redis/redistest"
)

// tieredFile writes a policy in which somebody's tier shows by what a limit allows.
func tieredFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
domain: llm
tiers: [ { name: free }, { name: pro } ]
descriptors:
- key: user
  subject: true
  limits: [ { name: tokens, meter: tokens, algorithm: calendar, tiers: { free: { limit: 100/month }, pro: { limit: 900/month } } } ]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// putTier makes the tier of alice known by one process.
func (p *process) putTier(t *testing.T, tier string) {
	t.Helper()
	_, err := rationv1.NewAdminServiceClient(dial(t, p.addrs(t).Admin)).PutSubject(t.Context(), &rationv1.PutSubjectRequest{
		Subject: &rationv1.SubjectName{Domain: "llm", Name: "alice"}, Tier: &tier,
		Actor: &rationv1.Actor{Name: "test", Reason: "to see"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tierOf asks a process for the tier of alice.
func (p *process) tierOf(t *testing.T) string {
	t.Helper()
	got, err := rationv1.NewUsageServiceClient(dial(t, p.addrs(t).GRPC)).GetUsage(t.Context(), &rationv1.GetUsageRequest{
		Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(got.GetTier(), " ", got.GetLimits()[0].GetStatus().GetCapacity())
}

// What is changed by one process counts in the others that have the same Redis, without their having to ask for it.
func TestReplicasHearOfSubjects(t *testing.T) {
	url, file := redistest.Start(t).URL(), tieredFile(t)
	one, other := serve(t, "--policy", file, "--store", url), serve(t, "--policy", file, "--store", url)
	for _, c := range []struct{ tier, want string }{{"pro", "pro 900"}, {"free", "free 100"}, {"pro", "pro 900"}} {
		if c.tier == "pro" && one.tierOf(t)+other.tierOf(t) != "free 100free 100" {
			t.Fatal("both are to know the tier before it changes")
		}
		one.putTier(t, c.tier)
		if got := one.tierOf(t); got != c.want {
			t.Errorf("where it was changed: %s, want %s at once", got, c.want)
		}
		eventually(t, "the other process hears of it", func() error {
			if got := other.tierOf(t); got != c.want {
				return fmt.Errorf("%s, want %s", got, c.want)
			}
			return nil
		})
	}
	_, page := get(t, "http://"+other.addrs(t).Metrics+"/metrics")
	for _, want := range []string{
		"ration_subject_changes_heard 1", "ration_subject_cache_failures_total 0", "ration_subject_cache_stale_total 0", "ration_subject_cache_entries 1",
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("the metrics lack %s; they have\n%s", want, linesOf(page, "ration_subject"))
		}
	}
	one.stop(t)
	other.stop(t)
}

// With --data subjects outlive the process, and without it they do not.
func TestSubjectsSurvive(t *testing.T) {
	file, dir := tieredFile(t), filepath.Join(t.TempDir(), "data")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--policy", file, "--data", dir}, "pro 900"},
		{[]string{"--policy", file}, "free 100"},
	} {
		first := serve(t, c.args...)
		first.putTier(t, "pro")
		if got := first.tierOf(t); got != "pro 900" {
			t.Errorf("put: %s", got)
		}
		first.stop(t)
		second := serve(t, c.args...)
		if got := second.tierOf(t); got != c.want {
			t.Errorf("after %v: %s, want %s", c.args, got, c.want)
		}
		second.stop(t)
	}
}

// The health tells that the directory is away.
func TestHealthOfSubjects(t *testing.T) {
	server := redistest.Start(t)
	p := serve(t, "--policy", tieredFile(t), "--store", server.URL())
	component := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := rationv1.NewStatusServiceClient(dial(t, p.addrs(t).GRPC)).GetHealth(ctx, &rationv1.GetHealthRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range got.GetComponents() {
			if c.GetName() == "subjects" {
				return c.GetStatus().String()
			}
		}
		return "none"
	}
	await := func(want string) {
		t.Helper()
		eventually(t, "the directory is "+want, func() error {
			if got := component(); got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
	}
	await("SERVING_STATUS_SERVING")
	server.Stop()
	await("SERVING_STATUS_NOT_SERVING")
	p.stop(t)
}

// Nobody but this machine may administer: a server that others would reach does not start, and says what would do.
func TestAdminOpenToOthers(t *testing.T) {
	code, _, stderr := runs(t, nil, "serve", "--grpc-addr=", "--metrics-addr=", "--debug-addr=", "--http-addr=127.0.0.1:0", "--admin-addr=:0")
	if code != exitFailed || !strings.Contains(stderr, "--admin-addr 127.0.0.1:8082") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}
