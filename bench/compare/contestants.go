package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A contestant is a rate limit service and how to start it. In command and env, placeholders in braces are replaced
// at each start; see placeholders.
type contestant struct {
	Name    string            `yaml:"name" json:"name"`
	About   string            `yaml:"about" json:"about,omitempty"`
	Command []string          `yaml:"command" json:"command"`
	Env     map[string]string `yaml:"env" json:"env,omitempty"`
	// Counts is false for a server that answers OK whatever is asked, as the floor does. All others must prove
	// before they are measured that they enforce the policy.
	Counts *bool `yaml:"counts" json:"counts,omitempty"`
	// Suites are the scenarios that it takes part in; none given are the plain ones.
	Suites []suite `yaml:"suites" json:"suites,omitempty"`
	// Heap, if there is one, is where it shows Go's heap profile as text, after a garbage collection.
	Heap string `yaml:"heap" json:"heap,omitempty"`
}

func (c contestant) plays(s suite) bool {
	if len(c.Suites) == 0 {
		return s == plain
	}
	return slices.Contains(c.Suites, s)
}

func (c contestant) counts() bool { return c.Counts == nil || *c.Counts }

//go:embed builtin.yaml
var builtin []byte

// The floor is what all others are compared with.
const floorName = "floor"

// gather returns the contestants of a comparison: the built-in ones, those from files and those written on the
// command line. If names are given, only those, in that order, with the floor before them.
func gather(files, inline, names []string) ([]contestant, error) {
	all, err := parseContestants(builtin)
	if err != nil {
		return nil, fmt.Errorf("built-in contestants: %w", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("contestants: %w", err)
		}
		more, err := parseContestants(text)
		if err != nil {
			return nil, fmt.Errorf("contestants in %s: %w", file, err)
		}
		all = append(all, more...)
	}
	for _, text := range inline {
		more, err := parseContestants([]byte("[" + text + "]"))
		if err != nil {
			return nil, fmt.Errorf("--contestant %q: %w", text, err)
		}
		all = append(all, more...)
	}
	known := make(map[string]contestant, len(all))
	var knownNames []string
	for _, c := range all {
		if _, again := known[c.Name]; again {
			return nil, fmt.Errorf("two contestants are named %q", c.Name)
		}
		known[c.Name] = c
		knownNames = append(knownNames, c.Name)
	}
	if len(names) == 0 {
		return all, nil
	}
	chosen := []contestant{known[floorName]}
	for _, name := range names {
		c, found := known[name]
		if !found {
			return nil, fmt.Errorf("no contestant is named %q; there are %s", name, strings.Join(knownNames, ", "))
		}
		if !slices.ContainsFunc(chosen, func(other contestant) bool { return other.Name == name }) {
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

func parseContestants(text []byte) ([]contestant, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var list []contestant
	if err := decoder.Decode(&list); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("no contestants")
		}
		return nil, err
	}
	for i, c := range list {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("contestant %d has no name", i+1)
		case len(c.Command) == 0:
			return nil, fmt.Errorf("contestant %s has no command", c.Name)
		}
		for _, s := range c.Suites {
			if !slices.Contains(allSuites, s) {
				return nil, fmt.Errorf("contestant %s: unknown suite %q; there are %v", c.Name, s, allSuites)
			}
		}
		for _, text := range c.texts() {
			for _, match := range placeholder.FindAllStringSubmatch(text, -1) {
				if err := checkPlaceholder(match[1], match[2]); err != nil {
					return nil, fmt.Errorf("contestant %s: %w", c.Name, err)
				}
			}
		}
		if !slices.ContainsFunc(c.texts(), func(text string) bool {
			return strings.Contains(text, "{grpc}") || strings.Contains(text, "{grpc_port}")
		}) {
			return nil, fmt.Errorf("contestant %s: neither its command nor its env says {grpc} or {grpc_port}, "+
				"so it cannot know where to listen", c.Name)
		}
	}
	return list, nil
}

// texts are all the strings that may hold placeholders.
func (c contestant) texts() []string {
	texts := append(slices.Clone(c.Command), c.Heap)
	for _, value := range c.Env {
		texts = append(texts, value)
	}
	return texts
}

// needsRedis reports whether a placeholder asks for a Redis.
func (c contestant) needsRedis() bool {
	return slices.ContainsFunc(c.texts(), func(text string) bool { return strings.Contains(text, "{redis") })
}

// placeholder matches {name} and {name:argument}; other braces, as in JSON, are left alone.
var placeholder = regexp.MustCompile(`\{([a-z]+(?:_[a-z]+)*)(?::([A-Za-z0-9_.-]+))?\}`)

// placeholders without an argument, and with one.
var (
	plainPlaceholders = []string{
		"grpc", "grpc_port", "redis", "redis_port", "redis_url",
		"policy", "policy_dir", "limits_policy", "accounts_policy", "lanes_policy", "rules_policy", "dir", "self",
	}
	namedPlaceholders = []string{"addr", "port", "bin"}
)

func checkPlaceholder(name, argument string) error {
	known := plainPlaceholders
	if argument != "" {
		known = namedPlaceholders
	}
	if slices.Contains(known, name) {
		return nil
	}
	if argument != "" {
		name += ":" + argument
	}
	return fmt.Errorf("unknown placeholder {%s}; there are {%s}, {%s:NAME}", name,
		strings.Join(plainPlaceholders, "}, {"), strings.Join(namedPlaceholders, ":NAME}, {"))
}

// expand replaces the placeholders of a text; value returns what stands for one.
func expand(text string, value func(name, argument string) (string, error)) (string, error) {
	var failed error
	expanded := placeholder.ReplaceAllStringFunc(text, func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		replacement, err := value(parts[1], parts[2])
		failed = errors.Join(failed, err)
		return replacement
	})
	return expanded, failed
}
