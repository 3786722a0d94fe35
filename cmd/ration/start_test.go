package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// TestServesWithNoFlagsAtAll is the first minute of a user: no flags, no policy, no Redis. The
// addresses come from the environment only so that tests do not collide.
func TestServesWithNoFlagsAtAll(t *testing.T) {
	const free = "127.0.0.1:0"
	p := start(t, map[string]string{
		"RATION_GRPC_ADDR": free, "RATION_HTTP_ADDR": free, "RATION_METRICS_ADDR": free, "RATION_DEBUG_ADDR": "", "RATION_ADMIN_ADDR": free,
		"RATION_DRAIN_DELAY": "0s",
	}, "serve")
	eventually(t, "the banner is complete", func() error {
		if !strings.Contains(p.said(), "Ctrl-C ends it.") {
			return os.ErrNotExist
		}
		return nil
	})
	said := p.said()
	if n := strings.Count(said, "no --policy is given"); n != 1 {
		t.Errorf("it is said %d times that an example is served, want once", n)
	}
	for _, want := range []string{
		"counters in memory",
		"domain quickstart: 5 rules",
		"each other value of user (rule quickstart.user): 5 requests per minute",
		"in shadow, so counted and reported but never refused",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the banner lacks %q", want)
		}
	}
	if strings.Contains(said, "  debug ") {
		t.Error("the banner tells of the debug address, which is off")
	}
	command := regexp.MustCompile(`grpcurl -plaintext -d '(\{.*\})' (127\.0\.0\.1:\d+) ` +
		`envoy\.service\.ratelimit\.v3\.RateLimitService/ShouldRateLimit`).FindStringSubmatch(said)
	if command == nil {
		t.Fatal("the banner has no command to try")
	}
	http := regexp.MustCompile(`HTTP +(127\.0\.0\.1:\d+)`).FindStringSubmatch(said)
	// The limit of 5 a minute holds for what the command sends; two minutes may take part in it.
	over := 0
	for range 11 {
		if code, _ := send(t, "POST", "http://"+http[1]+"/json", command[1]); code == 429 {
			over++
		}
	}
	if over == 0 {
		t.Error("11 requests as in the command were all admitted, want at most 10 in any two minutes")
	}
	other := ask(t, limiter(t, command[2]), request("quickstart", "user", "someone"))
	if other.GetOverallCode() != ratelimitv3.RateLimitResponse_OK {
		t.Errorf("the first request of another user got %v, want OK", other.GetOverallCode())
	}
	p.stop(t)
}

// TestBannerSaysWhoMayCall: on an address that others reach, as the default ones are, AccountingService answers nobody,
// unless it is told to.
func TestBannerSaysWhoMayCall(t *testing.T) {
	for _, c := range []struct {
		grpc, insecure string
		says           bool
	}{
		{":0", "", true}, {":0", "true", false}, {"127.0.0.1:0", "", false},
	} {
		env := map[string]string{"RATION_GRPC_ADDR": c.grpc, "RATION_HTTP_ADDR": "", "RATION_METRICS_ADDR": "", "RATION_DEBUG_ADDR": "", "RATION_ADMIN_ADDR": "", "RATION_DRAIN_DELAY": "0s"}
		if c.insecure != "" {
			env["RATION_INSECURE_API"] = c.insecure
		}
		p := start(t, env, "serve", "--policy", policyFile(t, 5), "--banner")
		eventually(t, "the banner is complete", func() error {
			if !strings.Contains(p.said(), "Ctrl-C ends it.") {
				return os.ErrNotExist
			}
			return nil
		})
		if got := strings.Contains(p.said(), "AccountingService answers only with --access, on loopback addresses, or with --insecure-api"); got != c.says {
			t.Errorf("on %s with RATION_INSECURE_API=%s the banner says so: %t, want %t", c.grpc, c.insecure, got, c.says)
		}
		p.stop(t)
	}
}

// TestNormalServingIsQuiet starts as an operator does, and stops: nothing is worth a line.
func TestNormalServingIsQuiet(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	p := start(t, nil, "serve", "--policy", policyFile(t, 5), "--grpc-addr", "unix:"+socket, "--http-addr", "",
		"--metrics-addr", "", "--debug-addr", "", "--admin-addr", "", "--drain-delay", "0s")
	if got := limitNow(t, limiter(t, "unix:"+waitForSocket(t, socket)), request("d", "user", "a")); got != 5 {
		t.Errorf("the limit over a Unix socket is %d, want 5", got)
	}
	p.stop(t)
	if said := p.said(); said != "" {
		t.Errorf("it said:\n%s\nwant nothing", said)
	}
}

func waitForSocket(t testing.TB, path string) string {
	t.Helper()
	eventually(t, path+" is there", func() error {
		_, err := os.Stat(path)
		return err
	})
	return path
}

// TestStartFailures walks through what keeps a server from starting: each is one clear line, and an
// exit code that tells a mistake in the settings (2) from the rest (1).
func TestStartFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: minutes, requests_per_unit: 1}\n"+
		"- key: b\n  rate_limit: {unit: eon, requests_per_unit: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	warns := filepath.Join(t.TempDir(), "warns.yaml")
	if err := os.WriteFile(warns, []byte("domain: d\ndescriptors:\n- key: a\n  shadow_mode: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const free = "127.0.0.1:0"
	all := []string{"serve", "--grpc-addr", free, "--http-addr", free, "--metrics-addr", free, "--debug-addr", free, "--admin-addr", free}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says []string // each on a line of its own, in this order
	}{
		{
			name: "address taken", args: []string{"--policy", policyFile(t, 1), "--http-addr", busy},
			code: exitFailed, says: []string{"ration: listen for HTTP on " + busy + ": .*address already in use"},
		},
		{
			name: "policy with two errors", args: []string{"--policy", bad},
			code: exitFailed, says: []string{
				"ration: " + bad + ":4:22: invalid rate limit unit 'minutes' .did you mean `minute`",
				"ration: " + bad + ":6:22: invalid rate limit unit 'eon'",
			},
		},
		{
			name: "policy that is not there", args: []string{"--policy", "/nowhere.yaml"},
			code: exitFailed, says: []string{"ration: /nowhere.yaml: cannot be read: no such file or directory"},
		},
		{
			name: "runtime directory that is not there", env: map[string]string{"RUNTIME_ROOT": "/nowhere", "RUNTIME_SUBDIRECTORY": "ratelimit"},
			code: exitFailed, says: []string{"ration: /nowhere/ratelimit/config: cannot be read: no such file or directory"},
		},
		{
			name: "warning, strictly", args: []string{"--policy", warns, "--strict"},
			code: exitFailed, says: []string{"ration: " + warns + ":4:.*`shadow_mode` has no effect"},
		},
		{
			name: "no store", args: []string{"--store", "postgres"},
			code: exitUsage, says: []string{`ration: --store: "postgres" is no store: use memory, or one of redis://`},
		},
		{
			name: "store of an unknown kind", env: map[string]string{"RATION_STORE": "memcached://u:secret@host"},
			code: exitUsage, says: []string{`ration: RATION_STORE: "memcached://…@host" cannot be used: unknown scheme "memcached"`},
		},
		{
			name: "data directory for Redis", args: []string{"--store", "redis://host:6379", "--data", "d"},
			code: exitUsage, says: []string{`ration: --data: only the memory store keeps its state in a directory: leave it out`},
		},
		{
			name: "data directory of somebody else", args: []string{"--data", filepath.Dir(bad)},
			code: exitFailed, says: []string{`ration: data directory: .* is not empty and has no ration.db: name a directory that is empty`},
		},
		{
			name: "Redis type without a URL", env: map[string]string{"REDIS_TYPE": "SINGLE"},
			code: exitUsage, says: []string{"ration: REDIS_TYPE is set, but REDIS_URL is not: set it to host:port"},
		},
		{
			name: "memcached", env: map[string]string{"BACKEND_TYPE": "memcache"},
			code: exitUsage, says: []string{`ration: BACKEND_TYPE: ration keeps no counters in "memcache": give --store`},
		},
		{
			name: "policies from xDS", env: map[string]string{"CONFIG_TYPE": "GRPC_XDS_SOTW"},
			code: exitUsage, says: []string{`ration: CONFIG_TYPE: ration does not read policies from "GRPC_XDS_SOTW": give --policy`},
		},
		{
			name: "address that is none", args: []string{"--grpc-addr", "8081"},
			code: exitUsage, says: []string{`ration: --grpc-addr: "8081" is no address: use host:port, :port or unix:/path`},
		},
		{
			name: "unknown flag", args: []string{"--polcy", "x"},
			code: exitUsage, says: []string{"ration: unknown flag --polcy, did you mean \"--policy\""},
		},
		{
			name: "key without certificate", args: []string{"--tls-key", "key.pem"},
			code: exitUsage, says: []string{"ration: --tls-key is set, but --tls-cert is not: TLS needs both"},
		},
		{
			name: "client authority without certificate", env: map[string]string{"RATION_TLS_CLIENT_CA": "ca.pem"},
			code: exitUsage, says: []string{"ration: RATION_TLS_CLIENT_CA is set, but --tls-cert is not"},
		},
		{
			name: "names without client authority", args: []string{"--tls-cert", "c", "--tls-key", "k", "--tls-client-san", "a"},
			code: exitUsage, says: []string{"ration: --tls-client-san is set, but --tls-client-ca is not"},
		},
		{
			name: "certificate that is not there", args: []string{"--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"},
			code: exitUsage, says: []string{"ration: TLS .--tls-cert.: open /nowhere/c: no such file or directory"},
		},
		{
			name: "established TLS without certificate", env: map[string]string{"GRPC_SERVER_USE_TLS": "true"},
			code: exitUsage, says: []string{"ration: GRPC_SERVER_USE_TLS is set, but GRPC_SERVER_TLS_CERT is not"},
		},
		{
			name: "Redis authority without TLS", args: []string{"--store", "redis://host:6379", "--redis-tls-ca", "ca.pem"},
			code: exitUsage, says: []string{"ration: --redis-tls-ca is set, but TLS is off: use rediss://, or --redis-tls"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runs(t, c.env, append(all[:len(all):len(all)], c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			lines := strings.Split(stderr, "\n")
			if len(lines) != len(c.says) {
				t.Fatalf("it said %d lines, want %d:\n%s", len(lines), len(c.says), stderr)
			}
			for i, want := range c.says {
				if !regexp.MustCompile("^" + want).MatchString(lines[i]) {
					t.Errorf("line %d is\n%s\nwant it to match\n%s", i+1, lines[i], want)
				}
			}
			if strings.Contains(stderr, "secret") {
				t.Error("it shows a password")
			}
		})
	}
}

// TestWarnings walks through what is worth a word at start, and no more than one.
func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		name, want string
		env        map[string]string
	}{
		{
			name: "variables of envoyproxy/ratelimit that do nothing here",
			env: map[string]string{
				"USE_STATSD": "false", "NEAR_LIMIT_RATIO": "0.9", "REDIS_PERSECOND_URL": "r:1", "SHADOW_MODE": "false", "DISABLE_STATS": "",
			},
			want: "NEAR_LIMIT_RATIO REDIS_PERSECOND_URL USE_STATSD",
		},
		{
			name: "variables that are misspelled", want: "RATION_POLICIES",
			env: map[string]string{"RATION_POLICIES": "x", "RATION_PORT": "tcp://10.0.0.1:8081", "RATION_SERVICE_HOST": "10.0.0.1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := serveWith(t, c.env, "--policy", policyFile(t, 1))
			p.addrs(t)
			var warnings []line
			for _, l := range p.log() {
				if l.Level == "WARN" {
					warnings = append(warnings, l)
				}
			}
			if len(warnings) != 1 || warnings[0].Names != c.want {
				t.Errorf("warnings are %+v, want one that names %s", warnings, c.want)
			}
			p.stop(t)
		})
	}
}
