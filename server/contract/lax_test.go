package contract_test

import (
	"context"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/rationhq/ration/server/contract"
)

// laxServer makes this test binary a server that loads any policy and limits nothing: the runner must notice.
const laxServer = "CONTRACT_TEST_LAX_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(laxServer) != "" {
		serveLax()
		return
	}
	os.Exit(m.Run())
}

func serveLax() {
	grpcListener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("GRPC_PORT")))
	if err != nil {
		panic(err)
	}
	httpListener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
	if err != nil {
		panic(err)
	}
	go func() {
		panic(http.Serve(httpListener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"overallCode":"OK","statuses":[{"code":"OK"}]}`))
		})))
	}()
	s := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(s, lax{})
	panic(s.Serve(grpcListener))
}

type lax struct{}

func (lax) ShouldRateLimit(_ context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	out := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
	for range r.GetDescriptors() {
		out.Statuses = append(out.Statuses, &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK})
	}
	// The runner's own domains are files of their names; knowing them is all it takes to look loaded.
	dir := filepath.Join(os.Getenv("RUNTIME_ROOT"), os.Getenv("RUNTIME_SUBDIRECTORY"), os.Getenv("RUNTIME_APPDIRECTORY"))
	if _, err := os.Stat(filepath.Join(dir, r.GetDomain()+".yaml")); err == nil {
		out.Statuses[0].LimitRemaining = math.MaxUint32
	}
	return out, nil
}

func TestRunnerNoticesAServerThatLimitsNothing(t *testing.T) {
	files, err := contract.Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runner := &contract.Runner{
		Target: contract.Target{Binary: self, Env: map[string]string{laxServer: "1"}, Column: contract.Ration},
	}
	for _, c := range []struct {
		name      string
		transport contract.Transport
		// notices is the first thing that the runner says; empty: the case passes.
		notices string
	}{
		{"B9 a descriptor that matches nothing has no limit", contract.GRPC, ""},
		{"B13 a limit of three counts down and then refuses for good", contract.GRPC,
			"step 1: statuses[0].current_limit: want 3 per DAY, got nothing"},
		{"B13 a limit of three counts down and then refuses for good", contract.JSON,
			"step 1: statuses[0].current_limit: want 3 per DAY, got nothing"},
		{"A4 the domain is looked at before the descriptors", contract.GRPC,
			"step 1: error: want {code: UNKNOWN, message: rate limit domain must not be empty}, got nothing"},
		{"A4 the domain is looked at before the descriptors", contract.JSON,
			`step 1: body: want "Bad Request\n", got '{"overallCode":"OK","statuses":[{"code":"OK"}]}'`},
		{"I60 a bad file leaves everything as it was", contract.GRPC,
			"step 1: statuses[0].current_limit: want 5 per DAY, got nothing"},
		{"Difference, SIGHUP", contract.GRPC, "step 1: statuses[0].current_limit: want 5 per DAY, got nothing"},
		{"H56 the health check", contract.JSON,
			"step 1: body: want OK, got {statuses: [{code: OK}], overallCode: OK}"},
	} {
		t.Run(string(c.transport)+" "+c.name, func(t *testing.T) {
			group := &contract.Group{Name: c.name, Cases: []*contract.Case{find(t, files, c.name)}}
			results, err := runner.RunGroup(t.Context(), host(t), group, contract.Memory, c.transport)
			if err != nil {
				t.Fatal(err)
			}
			first := ""
			if mismatches := results[0].Mismatches; len(mismatches) > 0 {
				first = mismatches[0]
			}
			if first != c.notices {
				t.Errorf("the runner says %q first, want %q", first, c.notices)
			}
		})
	}

	t.Run("policies", func(t *testing.T) {
		i := slices.IndexFunc(files, func(f *contract.File) bool { return len(f.Policies) > 0 })
		one := files[i].Policies[:1]
		results, err := runner.RunPolicies(t.Context(), host(t), one)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(results[one[0]], "; "); !strings.Contains(said, "got loaded") {
			t.Errorf("the runner says %q about a bad policy that was loaded", said)
		}
	})
}

func find(t *testing.T, files []*contract.File, name string) *contract.Case {
	for _, f := range files {
		for _, c := range f.Cases {
			if strings.Contains(c.Name, name) {
				return c
			}
		}
	}
	t.Fatalf("no case %q", name)
	return nil
}
