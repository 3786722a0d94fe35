package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// translation gives a flag the value that variables of envoyproxy/ratelimit ask for.
type translation struct {
	flag  string
	names []string
	// policies says that it counts only where neither the command line nor RATION_POLICY says which
	// policies to read.
	policies bool
	// value returns nil where the variables ask for nothing. Its errors name the variable.
	value func(*variables) (any, error)
}

// direct hands one variable on as it is.
func direct(flag, name string) translation {
	return translation{flag: flag, names: []string{name}, value: same(name)}
}

// toggle hands on one variable that is true or false.
func toggle(flag, name string) translation {
	return translation{flag: flag, names: []string{name}, value: truth(name)}
}

// where is t if the variable of that name is true; otherwise it asks for nothing.
func (t translation) where(name string) translation {
	t.value = where(name, t.value)
	return t
}

// translations lists the variables of envoyproxy/ratelimit that ration heeds.
func translations() []translation {
	return []translation{
		// What is decided.
		toggle("shadow", "SHADOW_MODE"),
		toggle("quota", "QUOTA_MODE"),

		// Policies.
		toggle("merge-domains", "MERGE_DOMAIN_CONFIG"),
		{
			flag: "policy", policies: true, value: runtimeDirectory,
			names: []string{"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "RUNTIME_WATCH_ROOT", "CONFIG_TYPE"},
		},
		{flag: "all-files", names: []string{"RUNTIME_ROOT"}, policies: true, value: allFiles},
		{flag: "dot-files", names: []string{"RUNTIME_IGNOREDOTFILES"}, policies: true, value: dotFiles},

		// Answers.
		toggle("response-headers", "LIMIT_RESPONSE_HEADERS_ENABLED"),
		direct("response-header-limit", "LIMIT_LIMIT_HEADER"),
		direct("response-header-remaining", "LIMIT_REMAINING_HEADER"),
		direct("response-header-reset", "LIMIT_RESET_HEADER"),
		toggle("response-metadata", "RESPONSE_DYNAMIC_METADATA"),

		// The store.
		{
			flag: "store", value: redisURL,
			names: []string{
				"REDIS_URL", "REDIS_TYPE", "REDIS_SOCKET_TYPE", "REDIS_AUTH", "REDIS_SENTINEL_AUTH", "REDIS_POOL_SIZE",
				"BACKEND_TYPE",
			},
		},
		direct("redis-timeout", "REDIS_TIMEOUT"),
		toggle("redis-tls", "REDIS_TLS"),
		direct("redis-tls-ca", "REDIS_TLS_CACERT").where("REDIS_TLS"),
		direct("redis-tls-cert", "REDIS_TLS_CLIENT_CERT").where("REDIS_TLS"),
		direct("redis-tls-key", "REDIS_TLS_CLIENT_KEY").where("REDIS_TLS"),
		toggle("redis-tls-skip-hostname-verification", "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION").where("REDIS_TLS"),
		direct("cache-key-prefix", "CACHE_KEY_PREFIX"),

		// Addresses.
		{flag: "grpc-addr", names: []string{"GRPC_HOST", "GRPC_PORT", "GRPC_UDS"}, value: grpcAddress},
		{flag: "http-addr", names: []string{"HOST", "PORT"}, value: hostPort("HOST", "", "PORT", "8080")},
		direct("metrics-addr", "PROMETHEUS_ADDR"),
		// Profiles are for those who can log in: unless told otherwise, not for the network.
		{
			flag: "debug-addr", names: []string{"DEBUG_HOST", "DEBUG_PORT"},
			value: hostPort("DEBUG_HOST", "127.0.0.1", "DEBUG_PORT", "6070"),
		},

		// TLS of the gRPC address.
		{
			flag: "tls-cert", names: []string{"GRPC_SERVER_TLS_CERT", "GRPC_SERVER_USE_TLS"},
			value: where("GRPC_SERVER_USE_TLS", needed("GRPC_SERVER_TLS_CERT", "GRPC_SERVER_USE_TLS")),
		},
		{
			flag: "tls-key", names: []string{"GRPC_SERVER_TLS_KEY", "GRPC_SERVER_USE_TLS"},
			value: where("GRPC_SERVER_USE_TLS", needed("GRPC_SERVER_TLS_KEY", "GRPC_SERVER_USE_TLS")),
		},
		direct("tls-client-ca", "GRPC_CLIENT_TLS_CACERT").where("GRPC_SERVER_USE_TLS"),
		{flag: "tls-client-san", names: []string{"GRPC_CLIENT_TLS_SAN"}, value: where("GRPC_SERVER_USE_TLS", clientSAN)},

		// Connections and logs.
		direct("max-connection-age", "GRPC_MAX_CONNECTION_AGE"),
		direct("max-connection-age-grace", "GRPC_MAX_CONNECTION_AGE_GRACE"),
		{flag: "log-level", names: []string{"LOG_LEVEL"}, value: logLevel},
		direct("log-format", "LOG_FORMAT"),
	}
}

// unsupported lists the variables of envoyproxy/ratelimit that have no effect on ration. A star
// stands for the rest of a name.
func unsupported() []string {
	return []string{
		// Policies from an xDS server.
		"FORCE_START_WITHOUT_INITIAL_CONFIG", "CONFIG_GRPC_XDS_*", "XDS_CLIENT_*",
		// Statistics: ration has /metrics in Prometheus's format, always.
		"USE_STATSD", "STATSD_HOST", "STATSD_PORT", "USE_DOG_STATSD", "USE_DOG_STATSD_MOGRIFIERS", "DOG_STATSD_MOGRIFIER_*",
		"USE_PROMETHEUS", "PROMETHEUS_PATH", "PROMETHEUS_MAPPER_YAML", "PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS",
		"EXTRA_TAGS", "STATS_FLUSH_INTERVAL", "DISABLE_STATS", "GOSTATS_*", "SANITIZE_DESCRIPTOR_METRIC_DOTS",
		// How counters are kept.
		"EXPIRATION_JITTER_MAX_SECONDS", "LOCAL_CACHE_SIZE_IN_BYTES", "NEAR_LIMIT_RATIO",
		"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "USE_CALENDAR_MONTH_RATE_LIMIT",
		// How Redis is talked to.
		"REDIS_PIPELINE_WINDOW", "REDIS_PIPELINE_LIMIT", "REDIS_CLUSTER_PIPELINE_PARALLELISM", "REDIS_POOL_ON_EMPTY_BEHAVIOR",
		"REDIS_STARTUP_INITIAL_INTERVAL", "REDIS_STARTUP_MAX_INTERVAL", "REDIS_STARTUP_MAX_ELAPSED_TIME",
		"REDIS_CLOSE_CONNECTION_ON_READONLY_ERROR", "REDIS_PERSECOND", "REDIS_PERSECOND_*", "MEMCACHE_*",
		// Health: a lost store always shows, and there is no start without a policy.
		"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",
		// Headers for the upstream, tracing, and what is in open pull requests.
		"LIMIT_REQUEST_HEADERS_ENABLED", "LIMIT_REQUEST_LIMIT_HEADER", "LIMIT_REQUEST_REMAINING_HEADER",
		"LIMIT_REQUEST_RESET_HEADER",
		"TRACING_*", "OTEL_EXPORTER_OTLP_*", "ENABLE_NEGATIVE_HITS", "MAX_CONCURRENT_REQUESTS", "REQUEST_TIMEOUT",
	}
}

// same hands the value of a variable on as it is.
func same(name string) func(*variables) (any, error) {
	return func(v *variables) (any, error) { return textOrNothing(v.text(name)), nil }
}

func textOrNothing(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// truth reads a variable as Go's strconv.ParseBool does.
func truth(name string) func(*variables) (any, error) {
	return func(v *variables) (any, error) {
		text := v.text(name)
		if text == "" {
			return nil, nil
		}
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is neither true nor false: use one of them", name, text)
		}
		return b, nil
	}
}

// where asks for a value only if the variable that switches it on is true.
func where(name string, value func(*variables) (any, error)) func(*variables) (any, error) {
	return func(v *variables) (any, error) {
		on, err := truth(name)(v)
		if err != nil || on != true {
			return nil, err
		}
		v.read = nil
		return value(v)
	}
}

// needed is same for a variable without which another makes no sense.
func needed(name, by string) func(*variables) (any, error) {
	return func(v *variables) (any, error) {
		text := v.text(name)
		if text == "" {
			return nil, fmt.Errorf("%s is set, but %s is not: set it to the path of a PEM file", by, name)
		}
		return text, nil
	}
}

// clientSAN is one name, whatever it contains.
func clientSAN(v *variables) (any, error) {
	if text := v.text("GRPC_CLIENT_TLS_SAN"); text != "" {
		return []any{text}, nil
	}
	return nil, nil
}

// logLevel knows the levels of logrus too.
func logLevel(v *variables) (any, error) {
	switch text := strings.ToLower(v.text("LOG_LEVEL")); text {
	case "trace":
		return "debug", nil
	case "warning":
		return "warn", nil
	case "fatal", "panic":
		return "error", nil
	default:
		return textOrNothing(text), nil
	}
}

// hostPort joins two variables, if one of them is set.
func hostPort(hostName, defaultHost, portName, defaultPort string) func(*variables) (any, error) {
	return func(v *variables) (any, error) {
		host, port := v.text(hostName), v.text(portName)
		if host == "" && port == "" {
			return nil, nil
		}
		if host == "" {
			host = defaultHost
		}
		if port == "" {
			port = defaultPort
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, fmt.Errorf("%s: %q is no port: use a number from 0 to 65535", portName, port)
		}
		return net.JoinHostPort(host, port), nil
	}
}

// grpcAddress is a Unix socket if one is given.
func grpcAddress(v *variables) (any, error) {
	path := v.text("GRPC_UDS")
	if path == "" {
		return hostPort("GRPC_HOST", "", "GRPC_PORT", "8081")(v)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, v.wrap(err)
	}
	return "unix:" + path, nil
}

// runtimeVariables say, each by being set, that policies lie where envoyproxy/ratelimit looks.
func runtimeVariables() []string {
	return []string{
		"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "RUNTIME_WATCH_ROOT", "RUNTIME_IGNOREDOTFILES",
	}
}

func usesRuntime(v *variables) bool {
	for _, name := range runtimeVariables() {
		if _, ok := v.lookup(name); ok {
			return true
		}
	}
	return false
}

// runtimeDirectory is RUNTIME_ROOT/RUNTIME_SUBDIRECTORY/RUNTIME_APPDIRECTORY, if one of the runtime
// variables is set.
func runtimeDirectory(v *variables) (any, error) {
	if !usesRuntime(v) {
		if kind := v.text("CONFIG_TYPE"); kind != "" && !strings.EqualFold(kind, "FILE") {
			return nil, fmt.Errorf("CONFIG_TYPE: ration does not read policies from %q: give --policy, or RUNTIME_ROOT", kind)
		}
		return nil, nil
	}
	root := v.text("RUNTIME_ROOT")
	if root == "" {
		root = "/srv/runtime_data/current"
	}
	below := v.text("RUNTIME_SUBDIRECTORY")
	app, given := v.lookup("RUNTIME_APPDIRECTORY")
	if !given {
		app = "config"
	}
	return []any{filepath.Join(root, below, app)}, nil
}

// allFiles: envoyproxy/ratelimit reads files of any name.
func allFiles(v *variables) (any, error) {
	if !usesRuntime(v) {
		return nil, nil
	}
	return true, nil
}

// dotFiles: envoyproxy/ratelimit reads hidden files unless told otherwise.
func dotFiles(v *variables) (any, error) {
	if !usesRuntime(v) {
		return nil, nil
	}
	ignore, err := truth("RUNTIME_IGNOREDOTFILES")(v)
	return ignore != true, err
}

// redisURL writes as one URL what the variables say about Redis.
func redisURL(v *variables) (any, error) {
	addr, kind := v.text("REDIS_URL"), strings.ToUpper(v.text("REDIS_TYPE"))
	backend := strings.ToLower(v.text("BACKEND_TYPE"))
	switch {
	case backend != "" && backend != "redis":
		return nil, fmt.Errorf("BACKEND_TYPE: ration keeps no counters in %q: give --store, or REDIS_URL and BACKEND_TYPE=redis",
			backend)
	case addr == "" && kind == "" && backend == "":
		return nil, nil
	case addr == "":
		return nil, fmt.Errorf("%s is set, but REDIS_URL is not: set it to host:port, or say --store memory",
			strings.Join(v.read, ", "))
	}
	auth, query, err := redisAccess(v)
	if err != nil {
		return nil, err
	}
	location := ""
	switch kind {
	case "", "SINGLE":
		location, err = singleRedis(v, addr, auth)
	case "SENTINEL":
		master, sentinels, ok := strings.Cut(addr, ",")
		if !ok {
			err = errors.New("REDIS_URL: for REDIS_TYPE=SENTINEL use master,host:port,host:port")
		}
		location = "redis-sentinel://" + auth + sentinels + "/" + master
	case "CLUSTER":
		location = "redis-cluster://" + auth + addr
	default:
		err = fmt.Errorf("REDIS_TYPE: %q is unknown: use SINGLE, SENTINEL or CLUSTER", kind)
	}
	switch {
	case err != nil:
		return nil, err
	case len(query) == 0:
		return location, nil
	case strings.Contains(location, "?"):
		return location + "&" + query.Encode(), nil
	}
	return location + "?" + query.Encode(), nil
}

// redisAccess returns who connects, as it stands in a URL, and the parameters of connections.
func redisAccess(v *variables) (auth string, query url.Values, err error) {
	if user, password := login(v.text("REDIS_AUTH")); password != "" {
		auth = url.UserPassword(user, password).String() + "@"
	}
	query = url.Values{}
	if user, password := login(v.text("REDIS_SENTINEL_AUTH")); password != "" {
		query.Set("sentinel_username", user)
		query.Set("sentinel_password", password)
	}
	if size := v.text("REDIS_POOL_SIZE"); size != "" {
		if n, err := strconv.ParseUint(size, 10, 16); err != nil || n == 0 {
			return "", nil, fmt.Errorf("REDIS_POOL_SIZE: %q is no number of connections: use one from 1 to 65535", size)
		}
		query.Set("pool_size", size)
	}
	return auth, query, nil
}

// login takes `password` or `user:password` apart.
func login(auth string) (user, password string) {
	user, password, ok := strings.Cut(auth, ":")
	if !ok {
		return "", auth
	}
	return user, password
}

// singleRedis returns the URL of a single Redis, which may be given as one.
func singleRedis(v *variables, addr, auth string) (string, error) {
	socket := strings.ToLower(v.text("REDIS_SOCKET_TYPE"))
	scheme, rest, isURL := strings.Cut(addr, "://")
	switch {
	case isURL && strings.Contains(rest, "@"):
		return addr, nil
	case isURL:
		return scheme + "://" + auth + rest, nil
	case socket == "unix" && !strings.HasPrefix(addr, "/"):
		return "", errors.New("REDIS_URL: with REDIS_SOCKET_TYPE=unix use an absolute path, " +
			"or set REDIS_SOCKET_TYPE=tcp for host:port")
	case strings.HasPrefix(addr, "/"):
		return "unix://" + auth + (&url.URL{Path: addr}).EscapedPath(), nil
	case socket != "" && !strings.HasPrefix(socket, "tcp"):
		return "", fmt.Errorf("REDIS_SOCKET_TYPE: %q is unknown: use tcp or unix", socket)
	}
	return "redis://" + auth + addr, nil
}
