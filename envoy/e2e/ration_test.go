package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// rationBinary is the program under test, and fakellmBinary one to stand behind it. TestMain builds both, once.
var rationBinary, fakellmBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "ration-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		for binary, source := range map[*string]string{
			&rationBinary: "../../cmd/ration", &fakellmBinary: "../../examples/fakellm",
		} {
			*binary = filepath.Join(dir, filepath.Base(source))
			if out, err := exec.Command("go", "build", "-o", *binary, source).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", source, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// ration is a running `ration serve`. Its addresses outlive it: stopped and started again, it is where it was.
type ration struct {
	*process
	grpc, http string
	store      string
	args       []string
	client     rls.RateLimitServiceClient
	health     healthpb.HealthClient
}

// memory is the store of ration that needs nothing beside it.
const memory = "memory"

// startRation serves a policy, a file or a folder, until the test ends, and returns when it is ready.
func startRation(t testing.TB, store, policy string, flags ...string) *ration {
	t.Helper()
	r := &ration{grpc: freeAddr(t), http: freeAddr(t), store: store}
	r.args = append([]string{"serve", "--policy", policy, "--store", store, "--grpc-addr", r.grpc, "--http-addr", r.http,
		"--metrics-addr", "", "--debug-addr", "", "--admin-addr", "", "--response-headers", "--response-body", "--drain-delay", "0s"},
		flags...)
	soon := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.client, r.health = rls.NewRateLimitServiceClient(conn), healthpb.NewHealthClient(conn)
	r.start(t)
	return r
}

// start starts ration, or starts it again after it has ended.
func (r *ration) start(t testing.TB) {
	t.Helper()
	r.process = start(t, "ration", rationBinary, r.args...)
	r.ready(t, r.serving)
}

// serving is nil while ration says that it serves.
func (r *ration) serving() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := r.health.Check(ctx, &healthpb.HealthCheckRequest{Service: "ratelimit"})
	if err != nil {
		return err
	}
	if got.Status != healthpb.HealthCheckResponse_SERVING {
		return errors.New(got.Status.String())
	}
	return nil
}

// redis is a private redis-server.
type redis struct {
	*process
	addr string
}

// url is what ration's --store takes.
func (r *redis) url() string { return "redis://" + r.addr }

func startRedis(t testing.TB) *redis {
	t.Helper()
	r := &redis{addr: freeAddr(t)}
	r.start(t)
	return r
}

// start starts Redis, empty, or starts it again after it has ended.
func (r *redis) start(t testing.TB) {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("there is no redis-server: run `make test`, which installs it")
	}
	r.process = start(t, "redis", bin, "--bind", "127.0.0.1", "--port", r.addr[strings.LastIndex(r.addr, ":")+1:],
		"--save", "", "--appendonly", "no", "--dir", t.TempDir())
	r.ready(t, func() error {
		conn, err := dial(t, r.addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// onBothStores runs a test with each store that ration has. Each call of store makes a new one.
func onBothStores(t *testing.T, test func(t *testing.T, store func(testing.TB) string)) {
	t.Run("memory", func(t *testing.T) { test(t, func(testing.TB) string { return memory }) })
	t.Run("redis", func(t *testing.T) { test(t, func(t testing.TB) string { return startRedis(t).url() }) })
}

// policyFile puts a policy into a file of its own.
func policyFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	put(t, file, text)
	return file
}
