package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// shippedFile is the bootstrap that users start from. Every test runs it; none has a copy.
const shippedFile = "../http-ratelimit.yaml"

// bootstrap is Envoy's configuration as a tree, so that a test changes what it is about and leaves the rest as shipped.
type bootstrap map[string]any

// shipped reads the shipped bootstrap and replaces its four sockets: Envoy chooses free ports for its listener and its
// admin interface, and the two clusters lead to the given addresses. Only the time that Envoy waits for ration differs
// beside that.
func shipped(t testing.TB, upstream string, ration ...string) bootstrap {
	t.Helper()
	return fromFile(t, shippedFile, upstream, ration...)
}

// providerKey is the key that takes the place of those that the files find in the environment.
const providerKey = "key-of-the-provider"

// fromFile is shipped for another of the files that users start from. All its clusters but ration's lead to upstream.
func fromFile(t testing.TB, file, upstream string, ration ...string) bootstrap {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	b := bootstrap(tree)
	at(b, "admin", "address", "socket_address")["port_value"] = 0
	at(named(b, "http", "static_resources", "listeners"), "address", "socket_address")["port_value"] = 0
	for _, c := range at(b, "static_resources")["clusters"].([]any) {
		if name := c.(map[string]any)["name"].(string); name != "ration" {
			b.endpoints(t, name, upstream)
		}
	}
	b.endpoints(t, "ration", ration...)
	secrets, _ := at(b, "static_resources")["secrets"].([]any)
	for _, s := range secrets {
		at(s.(map[string]any), "generic_secret")["secret"] = map[string]any{"inline_string": providerKey}
	}
	// A busy machine must not look like a service that does not answer. The tests of that set their own.
	b.filter("envoy.filters.http.ratelimit")["timeout"] = "10s"
	return b
}

// endpoints makes a cluster of the bootstrap lead to other addresses.
func (b bootstrap) endpoints(t testing.TB, cluster string, addrs ...string) {
	t.Helper()
	var endpoints []any
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		endpoints = append(endpoints, message(t, `endpoint: { address: { socket_address: { address: %s, port_value: %d } } }`, host, n))
	}
	at(named(b, cluster, "static_resources", "clusters"), "load_assignment")["endpoints"] =
		[]any{map[string]any{"lb_endpoints": endpoints}}
}

// hcm returns the configuration of the HTTP connection manager.
func (b bootstrap) hcm() map[string]any {
	listener := named(b, "http", "static_resources", "listeners")
	chain := listener["filter_chains"].([]any)[0].(map[string]any)
	return at(named(chain, "envoy.filters.network.http_connection_manager", "filters"), "typed_config")
}

// filter returns the configuration of an HTTP filter.
func (b bootstrap) filter(name string) map[string]any {
	return at(named(b.hcm(), name, "http_filters"), "typed_config")
}

// virtualHost adds a virtual host: requests for this host go by these routes instead of the shipped ones.
func (b bootstrap) virtualHost(host string, routes ...any) {
	config := at(b.hcm(), "route_config")
	config["virtual_hosts"] = append(config["virtual_hosts"].([]any),
		map[string]any{"name": host, "domains": []any{host}, "routes": routes})
}

// insertBefore puts an HTTP filter in front of another.
func (b bootstrap) insertBefore(name string, filter map[string]any) {
	filters := b.hcm()["http_filters"].([]any)
	i := slices.IndexFunc(filters, func(f any) bool { return f.(map[string]any)["name"] == name })
	b.hcm()["http_filters"] = slices.Insert(filters, i, any(filter))
}

// hitsByHeader makes the request header x-hits the hits of all descriptors of a request.
func (b bootstrap) hitsByHeader(t testing.TB) {
	b.insertBefore("envoy.filters.http.ratelimit", message(t, `
name: envoy.filters.http.set_filter_state
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
  on_request_headers:
  - object_key: envoy.ratelimit.hits_addend
    format_string: { text_format_source: { inline_string: "%%REQ(X-HITS)%%" }, omit_empty_values: true }
    skip_if_empty: true`))
}

// at descends into a tree. A wrong path panics: the shipped file has changed, and the test must follow.
func at(tree map[string]any, path ...string) map[string]any {
	for _, key := range path {
		next, ok := tree[key].(map[string]any)
		if !ok {
			panic(fmt.Sprintf("%s has no %q in %s", shippedFile, key, strings.Join(path, ".")))
		}
		tree = next
	}
	return tree
}

// named finds an element of a list by its name; the last part of the path is the list.
func named(tree map[string]any, name string, path ...string) map[string]any {
	parent := at(tree, path[:len(path)-1]...)
	for _, element := range parent[path[len(path)-1]].([]any) {
		if element := element.(map[string]any); element["name"] == name {
			return element
		}
	}
	panic(fmt.Sprintf("%s has no %q in %s", shippedFile, name, strings.Join(path, ".")))
}

// message parses a piece of Envoy configuration written in YAML, as in Envoy's own documentation.
func message(t testing.TB, format string, args ...any) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(fmt.Sprintf(format, args...)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// envoy is a running Envoy.
type envoy struct {
	*process
	url   string // of the listener
	admin string
}

// startEnvoy runs a real Envoy until the test ends, and returns when it serves. It has then also made the first health
// check of each cluster, since Envoy opens its listeners only afterwards.
func startEnvoy(t testing.TB, b bootstrap) *envoy {
	t.Helper()
	admin := filepath.Join(t.TempDir(), "admin")
	// Without hot restart there is no base id to collide on, and nothing is left behind in /dev/shm.
	e := &envoy{process: start(t, "envoy", envoyBinary(t), "--config-path", write(t, b), "--admin-address-path", admin,
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--file-flush-interval-msec", "50")}
	e.ready(t, func() error {
		addr, err := os.ReadFile(admin)
		if err != nil {
			return err
		}
		e.admin = "http://" + string(addr)
		ready, err := try(t.Context(), e.admin, request{path: "/ready"})
		if err != nil {
			return err
		}
		if ready.code != http.StatusOK {
			return fmt.Errorf("state %s", ready.body)
		}
		return nil
	})
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	told := send(t, e.admin, request{path: "/listeners?format=json"})
	if err := json.Unmarshal([]byte(told.body), &listeners); err != nil {
		t.Fatal(err)
	}
	if len(listeners.Statuses) != 1 {
		t.Fatalf("Envoy has %d listeners, want 1", len(listeners.Statuses))
	}
	socket := listeners.Statuses[0].Address.Socket
	e.url = fmt.Sprintf("http://%s:%d", socket.Address, socket.Port)
	return e
}

// write puts the bootstrap into a file, as JSON: Envoy reads that too.
func write(t testing.TB, b bootstrap) string {
	t.Helper()
	text, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	put(t, file, string(text))
	return file
}

// stat reads a counter or gauge of Envoy. One that Envoy has not made yet is 0.
func (e *envoy) stat(t testing.TB, name string) int {
	t.Helper()
	for line := range strings.Lines(send(t, e.admin, request{path: "/stats?filter=" + name}).body) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// envoyBinary finds Envoy: where RATION_ENVOY says, or where `make test` installs it.
func envoyBinary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("RATION_ENVOY"); bin != "" {
		return bin
	}
	found, err := filepath.Glob("../../.cache/venv/lib/python3*/site-packages/envoy/_bin/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("there is no Envoy in .cache/venv: run `make test`, which installs it (or set RATION_ENVOY to an Envoy 1.40)")
	}
	bin, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
