package cputime

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestProcStatIsReadWhateverTheProgramIsCalled(t *testing.T) {
	const rest = " S 1 812 812 0 -1 4194560 1000 2000 3 4 1234 66 777 888 20 0 9 0 41 1262510080 4093 18446744073709551615\n"
	tests := []struct {
		name, stat string
		want       time.Duration
		broken     bool
	}{
		{"plain", "812 (ration)" + rest, 13 * time.Second, false},
		{"spaces and parentheses", "812 (a) b (c) 7 7" + ")" + rest, 13 * time.Second, false},
		{"cut off", "812 (ration) S 1 812 812", 0, true},
		{"not a stat", "no such process", 0, true},
		{"not a number", strings.Replace("812 (ration)"+rest, "1234", "many", 1), 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStat(test.stat)
			if got != test.want || (err != nil) != test.broken {
				t.Errorf("got %v, error %v; want %v, broken %v", got, err, test.want, test.broken)
			}
		})
	}
}

func TestMachineStatLeavesOutIdleAndStolenTime(t *testing.T) {
	// user 100, nice 20, system 30, idle 9999, iowait 888, irq 4, softirq 6, steal 777, guest 50 (in user)
	got, err := parseMachineStat("cpu  100 20 30 9999 888 4 6 777 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if want := 1600 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, broken := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu a b c d e f g h"} {
		if _, err := parseMachineStat(broken); err == nil {
			t.Errorf("%q: no error", broken)
		}
	}
}

func TestRedisInfoCountsTheServerAlone(t *testing.T) {
	const info = "# CPU\r\nused_cpu_sys_children:100.0\r\nused_cpu_user_children:100.0\r\nused_cpu_sys:1.500000\r\n" +
		"used_cpu_user:2.250001\r\nused_cpu_sys_main_thread:1.4\r\nused_cpu_user_main_thread:2.2\r\n"
	got, err := parseRedisInfo(info)
	if want := 3750001 * time.Microsecond; err != nil || got.Round(time.Microsecond) != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, broken := range []string{"", "used_cpu_user:1\r\n", "used_cpu_user:1\r\nused_cpu_sys:x\r\n"} {
		if _, err := parseRedisInfo(broken); err == nil {
			t.Errorf("%q: no error", broken)
		}
	}
}

// burn keeps a CPU busy until the meter has moved by this much, which it must sooner or later.
func burn(t *testing.T, meter Meter, amount time.Duration) {
	t.Helper()
	begin, err := meter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		now, err := meter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now-begin >= amount {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("busy for a minute, but the meter went from %v to %v only", begin, now)
		}
	}
}

func TestMetersFollowThisProcess(t *testing.T) {
	burn(t, Self(), 30*time.Millisecond)
	burn(t, Process(os.Getpid()), 30*time.Millisecond)
	burn(t, Machine(), 30*time.Millisecond)
}

func TestProcessThatDoesNotExistIsAnError(t *testing.T) {
	const beyondAll = 1 << 30 // Linux allows ids below 1 << 22
	if _, err := Process(beyondAll)(t.Context()); err == nil || !strings.Contains(err.Error(), "1073741824") {
		t.Errorf("got %v", err)
	}
}

func TestRedisMeterFollowsARealRedis(t *testing.T) {
	client := startRedis(t)
	meter := Redis(client)
	burn(t, func(ctx context.Context) (time.Duration, error) {
		if err := client.Ping(ctx).Err(); err != nil {
			return 0, err
		}
		return meter(ctx)
	}, 10*time.Millisecond)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := meter(t.Context()); err == nil {
		t.Error("a reading without a Redis")
	}
}

func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatalf("this test needs redis-server (Debian: apt-get install redis-server): %v", err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // killed
	})
	client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(host, port)})
	for deadline := time.Now().Add(time.Minute); client.Ping(t.Context()).Err() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
	}
	return client
}
