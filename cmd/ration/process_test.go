package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// binary is the program under test, built once by TestMain, with the race detector in it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ration")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "ration")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build -race: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// patience bounds every wait for something that is certain to happen.
const patience = 20 * time.Second

// eventually calls ok until it returns nil.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// process is a ration that runs.
type process struct {
	cmd    *exec.Cmd
	stdout strings.Builder
	exited chan struct{}

	mu     sync.Mutex
	stderr []string
}

// line is a line of the log in JSON form.
type line struct {
	Level, Msg                string
	GRPC, HTTP                string
	Metrics, Debug, Admin     string
	Problem, Error            string
	Names, Cert, Domain, From string
	Reports                   int
}

// start starts ration with the given variables and nothing else of the test's environment that
// matters. A test that ends kills it, if it is still there.
func start(t testing.TB, env map[string]string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), exited: make(chan struct{})}
	// The race detector makes the exit code 66 where it finds something; it need not wait a second at every exit.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=atexit_sleep_ms=10"}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		// Lines may be long; the pipe ends with the process.
		for r := bufio.NewReader(stderr); ; {
			text, err := r.ReadString('\n')
			if text != "" {
				p.mu.Lock()
				p.stderr = append(p.stderr, strings.TrimSuffix(text, "\n"))
				p.mu.Unlock()
			}
			if err != nil {
				break
			}
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("ration %s, with %v, said:\n%s", strings.Join(args, " "), slices.Sorted(maps.Keys(env)), p.said())
		}
	})
	return p
}

// serve starts ration serve on free ports, which its log tells.
func serve(t testing.TB, args ...string) *process {
	t.Helper()
	return serveWith(t, nil, args...)
}

func serveWith(t testing.TB, env map[string]string, args ...string) *process {
	t.Helper()
	const free = "127.0.0.1:0"
	return start(t, env, append([]string{
		"serve", "--grpc-addr", free, "--http-addr", free, "--metrics-addr", free, "--debug-addr", free, "--admin-addr", free,
		"--log-level", "info", "--log-format", "json", "--drain-delay", "0s",
	}, args...)...)
}

// said returns what the process has printed to stderr so far.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.stderr, "\n")
}

// log returns the lines of the log so far that are in JSON form.
func (p *process) log() []line {
	var lines []line
	for text := range strings.Lines(p.said()) {
		var l line
		if json.Unmarshal([]byte(text), &l) == nil {
			lines = append(lines, l)
		}
	}
	return lines
}

// logged returns the lines of the log so far whose message holds text.
func (p *process) logged(text string) []line {
	return slices.DeleteFunc(p.log(), func(l line) bool { return !strings.Contains(l.Msg, text) })
}

// waitForLog waits until n lines of the log hold text, and returns them.
func (p *process) waitForLog(t testing.TB, text string, n int) []line {
	t.Helper()
	var lines []line
	eventually(t, "the log says "+text, func() error {
		if lines = p.logged(text); len(lines) >= n {
			return nil
		}
		if p.hasExited() {
			t.Fatalf("ration ended before it said %q", text)
		}
		return fmt.Errorf("%d times so far", len(lines))
	})
	return lines
}

// addrs returns where the process serves.
func (p *process) addrs(t testing.TB) line {
	t.Helper()
	return p.waitForLog(t, "serving", 1)[0]
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the process to end and returns its exit code.
func (p *process) exit(t testing.TB) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		// Go's own way to say where everything stands.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.exited
		t.Fatal("ration does not end")
		return 0
	}
}

// stop ends the process as an operator would.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != exitOK {
		t.Errorf("SIGTERM ended ration with exit code %d, want 0", code)
	}
}

// runs runs ration to its end and returns its exit code and what it printed.
func runs(t testing.TB, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, env, args...)
	code = p.exit(t)
	return code, p.stdout.String(), p.said()
}

// connect returns a connection that is closed with the test.
func connect(t testing.TB, addr string, how credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(how))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// limiter returns Envoy's service at addr.
func limiter(t testing.TB, addr string) ratelimitv3.RateLimitServiceClient {
	t.Helper()
	return ratelimitv3.NewRateLimitServiceClient(connect(t, addr, insecure.NewCredentials()))
}

// request is a request with one descriptor of one entry.
func request(domain, key, value string) *ratelimitv3.RateLimitRequest {
	return &ratelimitv3.RateLimitRequest{Domain: domain, Descriptors: []*commonv3.RateLimitDescriptor{{
		Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: key, Value: value}},
	}}}
}

// ask asks once, and fails the test if there is no decision.
func ask(t testing.TB, client ratelimitv3.RateLimitServiceClient, r *ratelimitv3.RateLimitRequest) *ratelimitv3.RateLimitResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := client.ShouldRateLimit(ctx, r)
	if err != nil {
		t.Fatalf("ask: %v", err)
	}
	return response
}

// limitNow returns the limit that applies to a request now; 0 is none.
func limitNow(t testing.TB, client ratelimitv3.RateLimitServiceClient, r *ratelimitv3.RateLimitRequest) uint32 {
	t.Helper()
	return ask(t, client, r).GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit()
}

// healthOf returns what the health service says of Envoy's service.
func healthOf(t testing.TB, conn *grpc.ClientConn) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	return healthOfService(t, conn, "ratelimit")
}

func healthOfService(t testing.TB, conn *grpc.ClientConn, service string) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatalf("ask for the health: %v", err)
	}
	return response.GetStatus()
}

// waitForHealth waits until the health is as wanted.
func waitForHealth(t testing.TB, conn *grpc.ClientConn, want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	eventually(t, "the health is "+want.String(), func() error {
		if got := healthOf(t, conn); got != want {
			return errors.New(got.String())
		}
		return nil
	})
}

// get performs a GET and returns status and body.
func get(t testing.TB, url string) (int, string) {
	t.Helper()
	return send(t, http.MethodGet, url, "")
}

func send(t testing.TB, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// policyFile writes a policy of one rule: so many requests a year for each value of key "user".
func policyFile(t testing.TB, perYear int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	writePolicy(t, file, perYear)
	return file
}

// writePolicy writes such a policy in place.
func writePolicy(t testing.TB, file string, perYear int) {
	t.Helper()
	text := fmt.Sprintf("domain: d\ndescriptors:\n- key: user\n  rate_limit: {unit: year, requests_per_unit: %d}\n", perYear)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
