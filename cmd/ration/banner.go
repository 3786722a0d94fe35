package main

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server"
)

// banner says where to reach what, what the limits mean, and how to try one.
func (c *serveCmd) banner(s *server.Server, p *policy.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, counters in %s\n\n", strings.SplitN(thisBuild().String(), "\n", 2)[0], masked(c.Store))
	for _, site := range []struct{ name, serves string }{
		{"gRPC", "for Envoy: envoy.service.ratelimit.v3.RateLimitService; ration.v1, grpc.health.v1.Health, reflection"},
		{"HTTP", "/json, /ration.v1.SERVICE/METHOD, /healthcheck"},
		{"metrics", "/metrics"},
		{"debug", "/rlconfig, /debug/pprof/"},
		{"admin", "ration.v1.AdminService: subjects, overrides, grants"},
	} {
		if addr := s.Addr(site.name); addr != "" {
			fmt.Fprintf(&b, "  %-8s %-22s %s\n", site.name, reachable(addr), site.serves)
		}
	}
	if s.Restricted("gRPC") || s.Restricted("HTTP") {
		b.WriteString("\n  ration.v1.AccountingService answers only with --access, on loopback addresses, or with --insecure-api\n")
	}
	b.WriteString("\nThe limits:\n\n")
	for _, line := range p.Explain() {
		b.WriteString("  " + line + "\n")
	}
	if command := c.try(s, p); command != "" {
		b.WriteString("\nTry it, more than once:\n\n  " + command + "\n")
	}
	if commands := c.walk(s, p); len(commands) > 0 {
		b.WriteString("\nAccount for the call of a model: reserve, settle, and see what was used:\n\n")
		for _, command := range commands {
			b.WriteString("  " + command + "\n")
		}
	}
	b.WriteString("\nCtrl-C ends it.\n")
	return b.String()
}

// try returns a command that asks for a decision by the first rule.
func (c *serveCmd) try(s *server.Server, p *policy.Policy) string {
	addr := s.Addr("gRPC")
	if addr == "" || len(p.Rules()) == 0 {
		return ""
	}
	r := p.Rules()[0]
	entries := example(p, r)
	if entries == nil {
		return ""
	}
	type descriptor struct {
		Entries []map[string]string `json:"entries"`
	}
	var d descriptor
	for _, entry := range entries {
		d.Entries = append(d.Entries, map[string]string{"key": entry.Key, "value": entry.Value})
	}
	request, err := json.Marshal(struct {
		Domain      string       `json:"domain"`
		Descriptors []descriptor `json:"descriptors"`
	}{r.Domain, []descriptor{d}})
	if err != nil {
		return ""
	}
	how := "-plaintext"
	if c.TLSCert != "" {
		how = "-insecure"
	}
	if c.TLSClientCA != "" {
		how += " -cert CLIENT.pem -key CLIENT-KEY.pem"
	}
	return fmt.Sprintf("grpcurl %s -d '%s' %s envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
		how, strings.ReplaceAll(string(request), "'", `'\''`), reachable(addr))
}

// walk returns commands that take a call of a model from its reservation to what is reported of it, by the first domain
// that has subjects with limits. Over TLS they need more than can be said here.
func (c *serveCmd) walk(s *server.Server, p *policy.Policy) []string {
	addr := s.Addr("gRPC")
	if addr == "" || c.TLSCert != "" || s.Restricted("gRPC") {
		return nil
	}
	for _, d := range p.Domains() {
		keys := d.SubjectKeys()
		if len(keys) == 0 || strings.Contains(keys[0], "*") || len(d.Limits()) == 0 {
			continue
		}
		caller := fmt.Sprintf("--domain %s %s", shellWord(d.Name()), shellWord(keys[0]+"=alice"))
		model := ""
		for _, t := range d.Tiers() {
			if name, ok := t.Attributes["model"].(string); ok && model == "" {
				model = " --model " + shellWord(name)
			}
		}
		return []string{
			"export RATION_SERVER=" + reachable(addr) + " PATH=$PWD/bin:$PATH",
			"id=$(ration reserve " + caller + model + " --input 900 --output 600 | awk '/^reservation/ { sub(\",\", \"\"); print $2 }')",
			"ration settle $id --input 900 --output 250",
			"ration usage " + caller,
			"ration explain " + caller + model + " --input 900 --output 600",
		}
	}
	return nil
}

// shellWord words an argument so that a shell takes it as it is.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./=:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// reachable words the address of a listener so that it can be connected to from here.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "unix:" + addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// example returns entries that the rule applies to, or nil where none are found.
//
// The path of a rule spells each level as key or key_value, joined by dots. Keys and values may hold
// dots and underscores themselves: which of them separate is found by asking the policy.
func example(p *policy.Policy, r *policy.Rule) []policy.Entry {
	domain := p.Domain(r.Domain)
	tries := 1000
	var search func(path string, above []policy.Entry) []policy.Entry
	search = func(path string, above []policy.Entry) []policy.Entry {
		for end := 1; end <= len(path) && tries > 0; end++ {
			last := end == len(path)
			if !last && path[end] != '.' {
				continue
			}
			for _, entry := range readings(path[:end]) {
				entries := append(slices.Clone(above), entry)
				if !last {
					entries = search(path[end+1:], entries)
				} else if tries--; !applies(domain, entries, r) {
					entries = nil
				}
				if entries != nil {
					return entries
				}
			}
		}
		return nil
	}
	return search(strings.TrimPrefix(r.Path, r.Domain+"."), nil)
}

func applies(domain *policy.Domain, entries []policy.Entry, r *policy.Rule) bool {
	matched, _ := domain.Match(entries, nil)
	return matched.Rule == r
}

// readings returns the entries that a level of a path may stand for: a key with any value, or a key
// and a value, which may be a pattern.
func readings(level string) []policy.Entry {
	entries := []policy.Entry{{Key: level, Value: "example"}}
	for i := range level {
		if level[i] == '_' {
			entries = append(entries, policy.Entry{Key: level[:i], Value: strings.ReplaceAll(level[i+1:], "*", "x")})
		}
	}
	return entries
}
