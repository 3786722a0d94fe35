package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// moveBootstrap writes a shipped bootstrap of Envoy's to another file, with free ports for those that it names: 10000
// where it listens, 9901 for its admin, 8081 of ration, 8000 of the models. Envoy tells the model for whom it is asked,
// which the model's ledger wants to know. All else stays as it is shipped, but for the time that ration has to answer
// in: on a laptop that is busy with something else, 100 ms may not be enough, and the demo is not about that.
func moveBootstrap(from, to string, where addresses) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	model, err := url.Parse(where.fakellm)
	if err != nil {
		return err
	}
	ports := map[int]int{10000: 0, 9901: 0}
	for port, addr := range map[int]string{8081: where.ration, 8000: model.Host} {
		_, free, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		if ports[port], err = strconv.Atoi(free); err != nil {
			return err
		}
	}
	missing := maps.Clone(ports)
	err = walk(tree, func(m map[string]any) error {
		if port, ok := m["port_value"].(int); ok {
			free, known := ports[port]
			if !known {
				return fmt.Errorf("%s: port %d is none that the demo knows", from, port)
			}
			m["port_value"] = free
			delete(missing, port)
		}
		if _, ok := m["failure_mode_deny"]; ok {
			m["timeout"] = patience.String()
		}
		if _, ok := m["virtual_hosts"]; ok {
			user := map[string]any{"key": "x-fake-user", "value": "%DYNAMIC_METADATA(identity:user)%"}
			m["request_headers_to_add"] = []any{map[string]any{"header": user}}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: nothing has port %d", from, slices.Sorted(maps.Keys(missing)))
	}
	moved, err := json.Marshal(tree) // Envoy reads that too
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, moved, 0o600)
}

// walk calls f for each mapping in a tree.
func walk(tree any, f func(map[string]any) error) error {
	switch tree := tree.(type) {
	case map[string]any:
		if err := f(tree); err != nil {
			return err
		}
		for _, below := range tree {
			if err := walk(below, f); err != nil {
				return err
			}
		}
	case []any:
		for _, below := range tree {
			if err := walk(below, f); err != nil {
				return err
			}
		}
	}
	return nil
}
