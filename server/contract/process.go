package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	startTimeout  = 15 * time.Second
	reloadTimeout = 10 * time.Second
	callTimeout   = 8 * time.Second
)

// ports hands out free ports, none twice: some servers listen with SO_REUSEPORT, and two of them on one port would
// share it without a word. They lie below the range that systems take the ports of outgoing connections from.
type ports struct {
	mu     sync.Mutex
	handed int
}

func (p *ports) next() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const lowest, count = 12000, 18000
	// Test processes that run side by side begin at different places.
	first := os.Getpid() * 97
	for p.handed < count {
		port := lowest + (first+p.handed)%count
		p.handed++
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("all %d ports from %d on are used up", count, lowest)
}

// logBuffer collects what a process prints.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

func (l *logBuffer) since(mark int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()[mark:]
}

// unquoted undoes the quoting that log formats put around messages.
var unquoted = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")

// process is a running server.
type process struct {
	cmd                 *exec.Cmd
	log                 *logBuffer
	exited              chan struct{}
	httpAddr, debugAddr string
	conn                *grpc.ClientConn
	limits              rlsv3.RateLimitServiceClient
}

// startProcess starts a server with the established environment names. Nothing of the runner's own environment
// reaches it but PATH and HOME.
func startProcess(t Target, store Store, redisAddr string, env map[string]string, ports *ports) (*process, error) {
	all := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"),
		"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1",
		"USE_STATSD": "false", "LOG_LEVEL": "warn",
	}
	addrs := map[string]string{}
	for _, name := range []string{"PORT", "GRPC_PORT", "DEBUG_PORT"} {
		port, err := ports.next()
		if err != nil {
			return nil, err
		}
		all[name] = strconv.Itoa(port)
		addrs[name] = net.JoinHostPort("127.0.0.1", all[name])
	}
	args := t.Args
	if store == Redis {
		all["REDIS_SOCKET_TYPE"], all["REDIS_TYPE"], all["REDIS_URL"] = "tcp", "SINGLE", redisAddr
	} else {
		args = append(args[:len(args):len(args)], t.MemoryArgs...)
	}
	for _, more := range []map[string]string{t.Env, env} {
		for k, v := range more {
			all[k] = v
		}
	}

	p := &process{
		cmd: exec.Command(t.Binary, args...), log: &logBuffer{}, exited: make(chan struct{}),
		httpAddr: addrs["PORT"], debugAddr: addrs["DEBUG_PORT"],
	}
	for k, v := range all {
		p.cmd.Env = append(p.cmd.Env, k+"="+v)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	var err error
	// The first attempts come before the server listens; the usual pause of a second after one would be most of a run.
	again := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond}
	p.conn, err = grpc.NewClient(addrs["GRPC_PORT"],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}))
	if err != nil {
		p.stop()
		return nil, err
	}
	p.limits = rlsv3.NewRateLimitServiceClient(p.conn)
	return p, nil
}

// stop ends the process at once.
func (p *process) stop() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// exitsWithin waits for the process to end.
func (p *process) exitsWithin(d time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// answers tells whether the server answers at all, and whether with this generation of its policy.
func (p *process) answers(ctx context.Context, generation int) (answered, loaded bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := p.limits.ShouldRateLimit(ctx, &rlsv3.RateLimitRequest{
		Domain: fmt.Sprintf("%s%d", probePrefix, generation),
		Descriptors: []*commonv3.RateLimitDescriptor{{
			Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "probe", Value: "x"}},
		}},
	})
	if err != nil {
		c := status.Code(err)
		return c != codes.Unavailable && c != codes.DeadlineExceeded, false
	}
	return true, len(r.GetStatuses()) == 1 && r.GetStatuses()[0].GetLimitRemaining() == math.MaxUint32
}

var errExited = errors.New("the process exited")

// lostPort tells whether the process ended because somebody took one of its ports before it did.
func (p *process) lostPort() bool {
	return p.hasExited() && strings.Contains(p.log.since(0), "address already in use")
}

// ready waits until the server answers; it need not have a policy.
func (p *process) ready(ctx context.Context) error {
	err := poll(ctx, startTimeout, func() error {
		if p.hasExited() {
			return errStop{errExited}
		}
		if answered, _ := p.answers(ctx, 0); !answered {
			return errors.New("no answer")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("start %s: %w; it printed:\n%s", p.cmd.Path, err, p.log.since(0))
	}
	return nil
}

// errStop ends a poll before its time.
type errStop struct{ error }

func (e errStop) Unwrap() error { return e.error }

// poll calls f until it succeeds.
func poll(ctx context.Context, timeout time.Duration, f func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := f()
		if err == nil {
			return nil
		}
		var stop errStop
		if errors.As(err, &stop) {
			return stop.error
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %w", timeout, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
