package main

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// parsed is a command line and an environment, read.
type parsed struct {
	grammar cli
	env     *environment
	model   *kong.Application
	err     error
}

// read reads args as if nothing but vars were in the environment. RATION_… are set for the process
// while the test runs, since the parser itself looks for them.
func read(t *testing.T, vars map[string]string, args ...string) *parsed {
	t.Helper()
	for name, value := range vars {
		if strings.HasPrefix(name, envPrefix+"_") {
			t.Setenv(name, value)
		}
	}
	p := &parsed{env: newEnvironment()}
	p.env.lookup = func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
	parser, err := newParser(&p.grammar, p.env, streams{io.Discard, io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	p.model = parser.Model
	_, p.err = parse(parser, p.env, args)
	return p
}

// flag returns the value of a flag of serve, as one would write it.
func (p *parsed) flag(t *testing.T, name string) string {
	t.Helper()
	for _, f := range serveFlagsOf(p.model) {
		if f.Name != name {
			continue
		}
		switch v := f.Target.Interface().(type) {
		case []string:
			return strings.Join(v, " and ")
		case period:
			return time.Duration(v).String()
		case level:
			return strings.ToLower(slog.Level(v).String())
		default:
			return fmt.Sprint(v)
		}
	}
	t.Fatalf("there is no flag --%s", name)
	return ""
}

func serveFlagsOf(model *kong.Application) []*kong.Flag {
	for _, command := range model.Children {
		if command.Name == "serve" {
			return command.Flags
		}
	}
	return nil
}

// TestPrecedence sets every flag that has established variables in the three ways, and looks which
// one wins: the flag before RATION_… before the established ones before the default.
func TestPrecedence(t *testing.T) {
	type vars = map[string]string
	cases := map[string]struct {
		established         vars
		asks                string // what the established variables ask for
		variable, flag, def string // what is set there; of a list in a variable, "and" stands for the comma
	}{
		"shadow":        {vars{"SHADOW_MODE": "T"}, "true", "false", "true", "false"},
		"quota":         {vars{"QUOTA_MODE": "1"}, "true", "false", "true", "false"},
		"merge-domains": {vars{"MERGE_DOMAIN_CONFIG": "TRUE"}, "true", "false", "true", "false"},
		"policy": {
			vars{"RUNTIME_ROOT": "/r,oot", "RUNTIME_SUBDIRECTORY": "sub"}, "/r,oot/sub/config", "/a and /b", "/c,d", "",
		},
		"all-files":        {vars{"RUNTIME_ROOT": "/root"}, "true", "false", "true", "false"},
		"dot-files":        {vars{"RUNTIME_ROOT": "/root"}, "true", "false", "true", "false"},
		"response-headers": {vars{"LIMIT_RESPONSE_HEADERS_ENABLED": "true"}, "true", "false", "true", "false"},
		"response-header-limit": {
			vars{"LIMIT_LIMIT_HEADER": "X-Limit"}, "X-Limit", "X-A", "X-B", "RateLimit-Limit",
		},
		"response-header-remaining": {
			vars{"LIMIT_REMAINING_HEADER": "X-Left"}, "X-Left", "X-A", "X-B", "RateLimit-Remaining",
		},
		"response-header-reset": {
			vars{"LIMIT_RESET_HEADER": "X-Reset"}, "X-Reset", "X-A", "X-B", "RateLimit-Reset",
		},
		"response-metadata": {vars{"RESPONSE_DYNAMIC_METADATA": "true"}, "true", "false", "true", "false"},
		"store":             {vars{"REDIS_URL": "r:1"}, "redis://r:1", "redis://a:1", "memory", "memory"},
		"redis-timeout":     {vars{"REDIS_TIMEOUT": "10s"}, "10s", "2s", "3s", "1s"},
		"redis-tls":         {vars{"REDIS_TLS": "true"}, "true", "false", "true", "false"},
		"redis-tls-ca":      {vars{"REDIS_TLS": "true", "REDIS_TLS_CACERT": "ca"}, "ca", "a", "b", ""},
		"redis-tls-cert":    {vars{"REDIS_TLS": "true", "REDIS_TLS_CLIENT_CERT": "cert"}, "cert", "a", "b", ""},
		"redis-tls-key":     {vars{"REDIS_TLS": "true", "REDIS_TLS_CLIENT_KEY": "key"}, "key", "a", "b", ""},
		"redis-tls-skip-hostname-verification": {
			vars{"REDIS_TLS": "true", "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true"}, "true", "false", "true", "false",
		},
		"cache-key-prefix":         {vars{"CACHE_KEY_PREFIX": "p:"}, "p:", "a:", "b:", ""},
		"grpc-addr":                {vars{"GRPC_HOST": "::1", "GRPC_PORT": "1"}, "[::1]:1", ":2", ":3", ":8081"},
		"http-addr":                {vars{"HOST": "127.0.0.1", "PORT": "1"}, "127.0.0.1:1", ":2", ":3", ":8080"},
		"metrics-addr":             {vars{"PROMETHEUS_ADDR": ":1"}, ":1", ":2", ":3", ":9090"},
		"debug-addr":               {vars{"DEBUG_PORT": "1"}, "127.0.0.1:1", "", ":3", "127.0.0.1:6070"},
		"tls-cert":                 {vars{"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k"}, "c", "a", "b", ""},
		"tls-key":                  {vars{"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k"}, "k", "a", "b", ""},
		"tls-client-ca":            {tlsVars("GRPC_CLIENT_TLS_CACERT", "ca"), "ca", "a", "b", ""},
		"tls-client-san":           {tlsVars("GRPC_CLIENT_TLS_SAN", "envoy,a"), "envoy,a", "a and b", "c,d", ""},
		"max-connection-age":       {vars{"GRPC_MAX_CONNECTION_AGE": "5m"}, "5m0s", "6m0s", "7m0s", "24h0m0s"},
		"max-connection-age-grace": {vars{"GRPC_MAX_CONNECTION_AGE_GRACE": "5m"}, "5m0s", "6m0s", "7m0s", "1h0m0s"},
		"log-level":                {vars{"LOG_LEVEL": "WARNING"}, "warn", "info", "debug", "warn"},
		"log-format":               {vars{"LOG_FORMAT": "JSON"}, "json", "text", "json", "text"},
	}
	for _, tr := range translations() {
		c, ok := cases[tr.flag]
		if !ok {
			t.Errorf("--%s has established variables and no case here", tr.flag)
			continue
		}
		t.Run(tr.flag, func(t *testing.T) {
			all := maps.Clone(c.established)
			expect := func(what, want string, vars map[string]string, args ...string) {
				t.Helper()
				p := read(t, vars, append([]string{"serve"}, args...)...)
				if p.err != nil {
					t.Fatalf("%s: %v", what, p.err)
				}
				if got := p.flag(t, tr.flag); got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			expect("nothing", c.def, nil)
			expect("established", c.asks, all)
			all[envPrefix+"_"+strings.ToUpper(strings.ReplaceAll(tr.flag, "-", "_"))] = strings.ReplaceAll(c.variable, " and ", ",")
			expect("established and RATION_…", c.variable, all)
			expect("all three", c.flag, all, "--"+tr.flag+"="+c.flag)
		})
	}
}

func tlsVars(name, value string) map[string]string {
	return map[string]string{
		"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k", name: value,
	}
}

// TestEveryFlagHasAVariable sets every flag of serve by RATION_… alone.
func TestEveryFlagHasAVariable(t *testing.T) {
	for _, f := range serveFlagsOf(read(t, nil, "version").model) {
		want := envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if !slices.Equal(f.Envs, []string{want}) {
			t.Errorf("--%s can be set by %v, want by %s", f.Name, f.Envs, want)
		}
	}
}

// TestEstablishedVariables walks through what is more than one name for one flag.
func TestEstablishedVariables(t *testing.T) {
	type vars = map[string]string
	for _, c := range []struct {
		name string
		vars vars
		flag string
		want string
	}{
		{"a Unix socket replaces the port", vars{"GRPC_UDS": "/run/r.sock", "GRPC_PORT": "1"}, "grpc-addr", "unix:/run/r.sock"},
		{"a port alone", vars{"GRPC_PORT": "1"}, "grpc-addr", ":1"},
		{"a host alone", vars{"HOST": "10.0.0.1"}, "http-addr", "10.0.0.1:8080"},
		{"an empty variable is none", vars{"PORT": "", "HOST": ""}, "http-addr", ":8080"},
		{"debugging for the network, if asked for", vars{"DEBUG_HOST": "0.0.0.0"}, "debug-addr", "0.0.0.0:6070"},

		{"the default root, if another variable is set", vars{"RUNTIME_WATCH_ROOT": "false"}, "policy", "/srv/runtime_data/current/config"},
		{"another directory", vars{"RUNTIME_ROOT": "/r", "RUNTIME_APPDIRECTORY": "app"}, "policy", "/r/app"},
		{"no directory", vars{"RUNTIME_ROOT": "/r", "RUNTIME_APPDIRECTORY": ""}, "policy", "/r"},
		{"hidden files", vars{"RUNTIME_ROOT": "/r", "RUNTIME_IGNOREDOTFILES": "true"}, "dot-files", "false"},
		{"RATION_POLICY is ration's own way", vars{"RUNTIME_ROOT": "/r", "RATION_POLICY": "/p"}, "all-files", "false"},
		{"and hidden files with it", vars{"RUNTIME_ROOT": "/r", "RATION_POLICY": "/p"}, "dot-files", "false"},
		{"files are what ration reads anyway", vars{"CONFIG_TYPE": "FILE"}, "policy", ""},

		{"TCP", vars{"REDIS_URL": "r:6379", "REDIS_SOCKET_TYPE": "tcp", "REDIS_TYPE": "single"}, "store", "redis://r:6379"},
		{"a socket", vars{"REDIS_URL": "/run/redis.sock", "REDIS_SOCKET_TYPE": "unix"}, "store", "unix:///run/redis.sock"},
		{"a socket by its look", vars{"REDIS_URL": "/run/redis.sock"}, "store", "unix:///run/redis.sock"},
		{"a password", vars{"REDIS_URL": "r:1", "REDIS_AUTH": "p@s/s?"}, "store", "redis://:p%40s%2Fs%3F@r:1"},
		{"user and password", vars{"REDIS_URL": "r:1", "REDIS_AUTH": "u:p:q"}, "store", "redis://u:p%3Aq@r:1"},
		{"a socket with a password", vars{"REDIS_URL": "/run/redis.sock", "REDIS_AUTH": "p"}, "store", "unix://:p@/run/redis.sock"},
		{"a pool", vars{"REDIS_URL": "r:1", "REDIS_POOL_SIZE": "20"}, "store", "redis://r:1?pool_size=20"},
		{"a URL", vars{"REDIS_URL": "rediss://r:1?db=2", "REDIS_AUTH": "p", "REDIS_POOL_SIZE": "3"}, "store", "rediss://:p@r:1?db=2&pool_size=3"},
		{"a URL with a user", vars{"REDIS_URL": "redis://u:p@r:1", "REDIS_AUTH": "q"}, "store", "redis://u:p@r:1"},
		{
			"Sentinel", vars{"REDIS_URL": "main,s1:1,s2:2", "REDIS_TYPE": "SENTINEL", "REDIS_AUTH": "p", "REDIS_SENTINEL_AUTH": "u:q"},
			"store", "redis-sentinel://:p@s1:1,s2:2/main?sentinel_password=q&sentinel_username=u",
		},
		{"a cluster", vars{"REDIS_URL": "n1:1,n2:2", "REDIS_TYPE": "Cluster", "REDIS_AUTH": "p"}, "store", "redis-cluster://:p@n1:1,n2:2"},
		{"files for a TLS that is off", vars{"REDIS_TLS": "false", "REDIS_TLS_CACERT": "ca"}, "redis-tls-ca", ""},
		{"files for a TLS that is off, to serve", vars{"GRPC_SERVER_TLS_CERT": "c"}, "tls-cert", ""},

		{"logrus's lowest level", vars{"LOG_LEVEL": "trace"}, "log-level", "debug"},
		{"logrus's highest level", vars{"LOG_LEVEL": "PANIC"}, "log-level", "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := read(t, c.vars, "serve")
			if p.err != nil {
				t.Fatal(p.err)
			}
			if got := p.flag(t, c.flag); got != c.want {
				t.Errorf("--%s is %q, want %q", c.flag, got, c.want)
			}
		})
	}
}

// TestCheckHeedsHowFilesAreRead: ration check reads the paths it is given, merged where the variable
// says so, but not as a runtime directory.
func TestCheckHeedsHowFilesAreRead(t *testing.T) {
	p := read(t, map[string]string{"MERGE_DOMAIN_CONFIG": "true", "RUNTIME_ROOT": "/r", "REDIS_TYPE": "what"}, "check", "/p")
	if p.err != nil {
		t.Fatal(p.err)
	}
	if c := p.grammar.Check; !c.MergeDomains || c.AllFiles || c.DotFiles || !slices.Equal(c.Paths, []string{"/p"}) {
		t.Errorf("check is %+v, want /p, domains merged and nothing else", c)
	}
}

// TestValuesThatCannotWork: one clear line names the flag or variable, the value, and what would do.
func TestValuesThatCannotWork(t *testing.T) {
	type vars = map[string]string
	for _, c := range []struct {
		vars vars
		args []string
		want string
	}{
		{args: []string{"--log-level=loud"}, want: `--log-level: "loud" is no log level: use debug, info, warn or error`},
		{vars: vars{"LOG_LEVEL": "loud"}, want: `LOG_LEVEL: "loud" is no log level: use debug, info, warn or error`},
		{vars: vars{"RATION_LOG_FORMAT": "xml"}, want: `RATION_LOG_FORMAT: "xml" is no log format: use text or json`},
		{args: []string{"--drain-delay=-1s"}, want: `--drain-delay: "-1s" is no duration: use one such as 500ms, 5s or 1h30m`},
		{args: []string{"--max-memory=1G"}, want: `--max-memory: "1G" is no size: use one such as 512MiB or 4GB`},
		{vars: vars{"RATION_MAX_MEMORY": "0MB"}, want: `RATION_MAX_MEMORY: "0MB" is no size: use one such as 512MiB or 4GB`},
		{args: []string{"--redis-wait-replicas=all"}, want: `--redis-wait-replicas: "all" is no number of replicas: use one from 0 to 100`},
		{args: []string{"--report-queue=many"}, want: `--report-queue: "many" is no number: use one such as 100000, or 0 for none`},
		{vars: vars{"RATION_REPORT_QUEUE": "-1"}, want: `RATION_REPORT_QUEUE: "-1" is no number: use one such as 100000, or 0 for none`},
		{vars: vars{"REDIS_TIMEOUT": "5"}, want: `REDIS_TIMEOUT: "5" is no duration: use one such as 500ms, 5s or 1h30m`},
		{args: []string{"--http-addr=:70000"}, want: `--http-addr: ":70000" is no address: use host:port, :port or unix:/path`},
		{vars: vars{"PROMETHEUS_ADDR": "9090"}, want: `PROMETHEUS_ADDR: "9090" is no address: use host:port, :port or unix:/path`},
		{vars: vars{"GRPC_PORT": "tcp://1.2.3.4:5"}, want: `GRPC_PORT: "tcp://1.2.3.4:5" is no port: use a number from 0 to 65535`},
		{vars: vars{"SHADOW_MODE": "maybe"}, want: `SHADOW_MODE: "maybe" is neither true nor false: use one of them`},
		{vars: vars{"RATION_SHADOW": "maybe"}, want: `RATION_SHADOW: bool value must be true, 1, yes, false, 0 or no but got "maybe"`},
		{args: []string{"--response-header-limit=a b"}, want: `--response-header-limit: "a b" is no name of a header: use letters, digits and hyphens`},
		{vars: vars{"CACHE_KEY_PREFIX": "{x}"}, want: `CACHE_KEY_PREFIX: "{x}" contains a brace: leave braces out, they mark the shard of a Redis Cluster`},
		{vars: vars{"REDIS_URL": "r:1", "REDIS_TYPE": "ring"}, want: `REDIS_TYPE: "RING" is unknown: use SINGLE, SENTINEL or CLUSTER`},
		{vars: vars{"REDIS_URL": "main", "REDIS_TYPE": "SENTINEL"}, want: `REDIS_URL: for REDIS_TYPE=SENTINEL use master,host:port,host:port`},
		{vars: vars{"REDIS_URL": "r:1", "REDIS_SOCKET_TYPE": "udp"}, want: `REDIS_SOCKET_TYPE: "udp" is unknown: use tcp or unix`},
		{
			vars: vars{"REDIS_URL": "r:1", "REDIS_SOCKET_TYPE": "unix"},
			want: `REDIS_URL: with REDIS_SOCKET_TYPE=unix use an absolute path, or set REDIS_SOCKET_TYPE=tcp for host:port`,
		},
		{vars: vars{"REDIS_URL": "r:1", "REDIS_POOL_SIZE": "0"}, want: `REDIS_POOL_SIZE: "0" is no number of connections: use one from 1 to 65535`},
		{vars: vars{"BACKEND_TYPE": "redis"}, want: `BACKEND_TYPE is set, but REDIS_URL is not: set it to host:port, or say --store memory`},
	} {
		t.Run(c.want, func(t *testing.T) { // variables are set for one case only
			p := read(t, c.vars, append([]string{"serve"}, c.args...)...)
			if p.err == nil {
				t.Fatal("it is accepted")
			}
			if p.err.Error() != c.want {
				t.Errorf("it says %v", p.err)
			}
		})
	}
}

// TestAFlagMendsAVariable: what is wrong in the environment does not matter where the flag is given.
func TestAFlagMendsAVariable(t *testing.T) {
	for _, name := range []string{"LOG_LEVEL", "RATION_LOG_LEVEL"} {
		p := read(t, map[string]string{name: "loud"}, "serve", "--log-level=info")
		if p.err != nil {
			t.Errorf("%s: %v, want the flag to win", name, p.err)
			continue
		}
		if got := p.flag(t, "log-level"); got != "info" {
			t.Errorf("the level is %s, want info", got)
		}
	}
}

// TestMaskedURLs: what is printed of a store's URL holds no secret.
func TestMaskedURLs(t *testing.T) {
	for url, want := range map[string]string{
		"memory":                      "memory",
		"redis://host:6379/1":         "redis://host:6379/1",
		"redis://u:secret@host":       "redis://…@host",
		"redis://u:sec?ret@host?db=1": "redis://…",
		"redis-sentinel://a/m?sentinel_password=s@cret": "redis-sentinel://…",
		"u:secret@host:6379":                            "…@host:6379",
		"redis-sentinel://:secret@a,b/m?x=secret":       "redis-sentinel://…@a,b/m",
	} {
		if got := masked(url); got != want {
			t.Errorf("masked(%q) = %q, want %q", url, got, want)
		}
	}
}
