package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that is certain to happen. It is long because a wait ends as soon as it is
// over: only a test that fails pays for it.
const patience = 20 * time.Second

// eventually calls ok until it returns nil, and fails the test with the last error when patience is exhausted.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// process is a program that a test has started: Envoy, ration or Redis. What it prints goes to a file, which a failing
// test shows.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the program has ended
	err  error         // how it ended; to be read after done
}

// start runs a program until the test ends. Then SIGTERM must end it, with exit code 0.
func start(t testing.TB, name, bin string, args ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, cmd: exec.Command(bin, args...), log: log.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// ration reads many variables. Those of whoever runs the tests shall not matter.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), log.Close())
		close(p.done)
	}()
	t.Cleanup(func() {
		if p.alive() == nil {
			p.signal(syscall.SIGTERM)
			p.signal(syscall.SIGCONT) // a test may have stopped it
			select {
			case <-p.done:
				if p.err != nil {
					t.Errorf("%s did not end well on SIGTERM: %v", p.name, p.err)
				}
			case <-time.After(patience):
				t.Errorf("%s did not end on SIGTERM", p.name)
				p.signal(syscall.SIGKILL)
				<-p.done
			}
		}
		if t.Failed() {
			t.Logf("%s\n%s", strings.Join(p.cmd.Args, " "), p.output())
		}
	})
	return p
}

// signal sends s, if the program still runs.
func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(fmt.Sprintf("signal %s: %v", p.name, err))
	}
}

// wait waits for the program to end and returns how it did: nil is exit code 0.
func (p *process) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		t.Fatalf("%s still runs after %v", p.name, patience)
		return nil
	}
}

// alive is nil while the program runs.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, p.output())
	default:
		return nil
	}
}

// ready waits until the program is ready, and fails at once if it ends instead.
func (p *process) ready(t testing.TB, ok func() error) {
	t.Helper()
	eventually(t, p.name+" is ready", func() error {
		if err := p.alive(); err != nil {
			t.Fatal(err)
		}
		return ok()
	})
}

// output returns the end of what the program has printed.
func (p *process) output() string {
	const most = 16 << 10
	out, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(out[max(0, len(out)-most):])
}

// freeAddr returns a loopback address that nobody listens on. It stays below the ports that the kernel hands to
// clients, so that no connection takes it while the program behind it is down.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port between 12000 and 30000")
	return ""
}

// answer is an HTTP response, read whole.
type answer struct {
	code   int
	header http.Header
	body   string
}

// request is what a test asks of Envoy: a path, and perhaps a virtual host and headers.
type request struct {
	method string // GET if empty
	host   string
	path   string
	header map[string]string
	body   string
}

// send performs one HTTP request, without following redirects.
func send(t testing.TB, base string, r request) answer {
	t.Helper()
	a, err := try(t.Context(), base, r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// try is send for those who expect that it may fail.
func try(ctx context.Context, base string, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if r.method == "" {
		r.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, strings.NewReader(r.body))
	if err != nil {
		return answer{}, err
	}
	req.Host = r.host
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{code: resp.StatusCode, header: resp.Header, body: string(body)}, nil
}

// dial opens a connection.
func dial(t testing.TB, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(t.Context(), "tcp", addr)
}
