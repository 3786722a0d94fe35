package redistest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"

	"github.com/rationhq/ration/store/redis/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis reports every connection that is cut
	goleak.VerifyTestMain(m)
}

// through returns a client that repeats nothing and gives up on a connection after a while.
func through(t *testing.T, p *redistest.Proxy) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: p.Addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 1, ReadTimeout: 200 * time.Millisecond,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A fault hits the second of three commands. What the client saw of that one, and what Redis has run.
func TestFaults(t *testing.T) {
	server := redistest.Start(t)
	for name, c := range map[string]struct {
		fault redistest.Fault
		err   error
		ran   int64
	}{
		"none":                          {redistest.Fault{}, nil, 3},
		"cut before":                    {redistest.Fault{Do: redistest.CutBefore}, io.EOF, 2},
		"cut after":                     {redistest.Fault{Do: redistest.CutAfter}, io.EOF, 3},
		"cut within":                    {redistest.Fault{Do: redistest.CutWithin}, io.EOF, 3},
		"swallow the command":           {redistest.Fault{Do: redistest.SwallowCommand}, timeout{}, 2},
		"swallow the answer":            {redistest.Fault{Do: redistest.SwallowAnswer}, timeout{}, 3},
		"delay":                         {redistest.Fault{Delay: 20 * time.Millisecond}, nil, 3},
		"delay until the client left":   {redistest.Fault{Delay: 400 * time.Millisecond}, timeout{}, 3},
		"delay the answer":              {redistest.Fault{AnswerDelay: 20 * time.Millisecond}, nil, 3},
		"delay the answer for too long": {redistest.Fault{AnswerDelay: 400 * time.Millisecond}, timeout{}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := redistest.StartProxy(t, server.Addr)
			client, look, ctx := through(t, p), server.Client(t), context.Background()
			p.Set(redistest.Nth(2, c.fault, "INCR"))
			for n := range 3 {
				want := c.err
				if n != 1 {
					want = nil
				}
				if err := client.Incr(ctx, name).Err(); !is(err, want) {
					t.Errorf("command %d: %v, want %v", n+1, err, want)
				}
			}
			if seen := p.Seen("INCR"); seen != 3 {
				t.Errorf("the proxy has seen %d commands, want 3", seen)
			}
			// A command that was held back comes to Redis after its client has left.
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				ran, err := look.Get(ctx, name).Int64()
				if ran == c.ran {
					break
				}
				if ran > c.ran || time.Now().After(deadline) {
					t.Fatalf("Redis has run %d (%v), want %d", ran, err, c.ran)
				}
			}
		})
	}
}

// timeout stands for any error of a client that waited in vain.
type timeout struct{}

func (timeout) Error() string { return "a timeout" }

func is(err, want error) bool {
	if errors.Is(want, timeout{}) {
		var timed net.Error
		return errors.As(err, &timed) && timed.Timeout()
	}
	return errors.Is(err, want)
}

// A reset is told from an end of the stream by who reads from the socket itself.
func TestReset(t *testing.T) {
	p := redistest.StartProxy(t, redistest.Start(t).Addr)
	for _, action := range []redistest.Action{redistest.CutBefore, redistest.CutAfter} {
		for reset, want := range map[bool]error{false: io.EOF, true: syscall.ECONNRESET} {
			p.Set(redistest.All(redistest.Fault{Do: action, Reset: reset}))
			conn, err := net.Dial("tcp", p.Addr) //nolint:noctx // it has a deadline below
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, "*1\r\n$4\r\nPING\r\n")
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, want) {
				t.Errorf("action %d, reset %v: %v, want %v", action, reset, err, want)
			}
		}
	}
}

// In a pipeline, what follows a command that is cut off does not reach Redis.
func TestCutWithinAPipeline(t *testing.T) {
	server := redistest.Start(t)
	p := redistest.StartProxy(t, server.Addr)
	client, ctx := through(t, p), context.Background()
	p.Set(redistest.Nth(2, redistest.Fault{Do: redistest.CutAfter}, "INCR"))
	pipe := client.Pipeline()
	for i := range 3 {
		pipe.Incr(ctx, fmt.Sprint("key ", i))
	}
	if _, err := pipe.Exec(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want %v", err, io.EOF)
	}
	ran := server.Client(t).MGet(ctx, "key 0", "key 1", "key 2").Val()
	if got := fmt.Sprint(ran); got != "[1 1 <nil>]" {
		t.Errorf("Redis has run %s, want the first two", got)
	}
}

// Whatever Redis answers passes through unchanged, in both versions of its protocol.
func TestEveryKindOfAnswerPasses(t *testing.T) {
	server := redistest.Start(t)
	p := redistest.StartProxy(t, server.Addr)
	for _, version := range []int{2, 3} {
		opts := redis.Options{Addr: server.Addr, Protocol: version}
		direct := redis.NewClient(&opts)
		defer direct.Close()
		opts.Addr = p.Addr
		proxied := redis.NewClient(&opts)
		defer proxied.Close()
		for _, script := range []string{
			"return 1", "return redis.status_reply('fine')", "return redis.error_reply('BAD luck')", "return false",
			"return ''", "return string.rep('x', 100000)", `return 'two\r\nlines'`, "return {}",
			"return {1, {2, 'three'}, false}",
			"redis.setresp(3) return {map = {a = 1}}", "redis.setresp(3) return {set = {a = true}}",
			"redis.setresp(3) return {double = 1.5}", "redis.setresp(3) return true",
			"redis.setresp(3) return {big_number = '123456789012345678901234567890'}",
			"redis.setresp(3) return {verbatim_string = {format = 'txt', string = 'words'}}",
		} {
			want, wantErr := direct.Eval(context.Background(), script, nil).Result()
			got, err := proxied.Eval(context.Background(), script, nil).Result()
			if fmt.Sprint(got, err) != fmt.Sprint(want, wantErr) {
				t.Errorf("RESP %d: %s: %.100v, %v, want %.100v, %v", version, script, got, err, want, wantErr)
			}
		}
	}
}

// A proxy can be led elsewhere, as a name or a virtual address is after a failover, and nowhere.
func TestTo(t *testing.T) {
	first, second := redistest.Start(t), redistest.Start(t)
	p := redistest.StartProxy(t, first.Addr)
	client, ctx := through(t, p), context.Background()
	port := func() string {
		info, err := client.Info(ctx, "server").Result()
		if err != nil {
			// The connection of before is found to be cut.
			info = client.Info(ctx, "server").Val()
		}
		_, rest, _ := strings.Cut(info, "tcp_port:")
		port, _, _ := strings.Cut(rest, "\r\n")
		return port
	}
	for _, server := range []*redistest.Server{first, second, first} {
		p.To(server.Addr)
		if got := port(); !strings.HasSuffix(server.Addr, ":"+got) || got == "" {
			t.Errorf("answered by port %q, want that of %s", got, server.Addr)
		}
	}
	p.To("")
	if got := port(); got != "" {
		t.Errorf("answered by port %q, want nobody", got)
	}
	p.To(first.Addr)
	if got := port(); got == "" {
		t.Error("nobody answers, want the first again")
	}
}

// What is not the Redis protocol ends the connection instead of hanging.
func TestOtherProtocol(t *testing.T) {
	p := redistest.StartProxy(t, redistest.Start(t).Addr)
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "+OK\r\n", "*1\r\n:5\r\n", "\n"} {
		conn, err := net.Dial("tcp", p.Addr) //nolint:noctx // it has a deadline below
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, text)
		if rest, err := io.ReadAll(conn); len(rest) > 0 || errors.Is(err, syscall.ETIMEDOUT) || is(err, timeout{}) {
			t.Errorf("%q: answered %q, %v, want the end of the connection", text, rest, err)
		}
	}
}
