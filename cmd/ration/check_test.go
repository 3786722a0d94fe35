package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCheck walks through what ration check says of policies, and how it ends.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "domain: good\ndescriptors:\n- key: user\n  rate_limit: {unit: minute, requests_per_unit: 5}\n")
	bad := write("bad.yaml", "domain: bad\ndescriptors:\n- key: user\n  rate_limits: {unit: minute, requests_per_unit: 5}\n"+
		"- key: path\n  rate_limit: {unit: minut, requests_per_unit: 5}\n")
	doubtful := write("doubtful.yaml", "domain: doubtful\ndescriptors:\n- key: user\n"+
		"  rate_limit: {unit: minute, requests_per_unit: 5, shadow_mode: true}\n")
	write("merged/a.yaml", "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, requests_per_unit: 1}\n")
	write("merged/b.yaml", "domain: d\ndescriptors:\n- key: b\n  rate_limit: {unit: hour, requests_per_unit: 1}\n")
	write("runtime/..data/limits", "domain: r\ndescriptors:\n- key: c\n  rate_limit: {unit: hour, requests_per_unit: 1}\n")
	write("runtime/more", "domain: s\ndescriptors:\n- key: c\n  rate_limit: {unit: hour, requests_per_unit: 1}\n")
	merged, runtime := filepath.Join(dir, "merged"), filepath.Join(dir, "runtime")

	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		says []string // each a line, in this order
	}{
		{
			name: "good", args: []string{good},
			says: []string{"domain good: 1 rule", "  each value of user .rule good.user.: 5 requests per minute, aligned"},
		},
		{
			name: "two errors, with suggestions", args: []string{bad}, code: exitFailed,
			says: []string{
				bad + ":4:3: config error, unknown key 'rate_limits' .did you mean `rate_limit`",
				bad + ":6:22: invalid rate limit unit 'minut' .did you mean `minute`",
			},
		},
		{
			name: "a warning", args: []string{doubtful},
			says: []string{doubtful + ":4:52: warning: .*shadow_mode", "domain doubtful: 1 rule", "  each value of user"},
		},
		{
			name: "a warning, strictly", args: []string{doubtful, "--strict"}, code: exitFailed,
			says: []string{doubtful + ":4:52: .*shadow_mode"},
		},
		{
			name: "one domain in two files", args: []string{merged}, code: exitFailed,
			says: []string{filepath.Join(merged, "b.yaml") + ":1:9: duplicate domain 'd' in config file"},
		},
		{
			name: "merged", args: []string{merged, "--merge-domains"},
			says: []string{"domain d: 2 rules", "  each value of a ", "  each value of b "},
		},
		{
			name: "merged, as the environment says", args: []string{merged}, env: map[string]string{"MERGE_DOMAIN_CONFIG": "true"},
			says: []string{"domain d: 2 rules", "  each value of a ", "  each value of b "},
		},
		{
			name: "several paths", args: []string{good, merged, "--merge-domains"},
			says: []string{"domain d", "  each", "  each", "domain good", "  each"},
		},
		{
			name: "a directory without policies", args: []string{runtime}, code: exitFailed,
			says: []string{runtime + ": warning: the directory holds no policy file", runtime + ": there is no policy at all"},
		},
		{name: "all files", args: []string{runtime, "--all-files"}, says: []string{"domain s", "  each value of c"}},
		{
			name: "all files, hidden ones too", args: []string{runtime, "--all-files", "--dot-files"},
			says: []string{"domain r", "  each value of c", "domain s", "  each value of c"},
		},
		{
			name: "nothing there", args: []string{"/nowhere"}, code: exitFailed,
			says: []string{"/nowhere: cannot be read: no such file or directory"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := runs(t, c.env, append([]string{"check"}, c.args...)...)
			if code != c.code || stderr != "" {
				t.Errorf("exit code %d and on stderr %q, want %d and nothing", code, stderr, c.code)
			}
			lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if len(lines) != len(c.says) {
				t.Fatalf("it said %d lines, want %d:\n%s", len(lines), len(c.says), stdout)
			}
			for i, want := range c.says {
				if !regexp.MustCompile("^" + want).MatchString(lines[i]) {
					t.Errorf("line %d is\n%s\nwant it to match\n%s", i+1, lines[i], want)
				}
			}
		})
	}
	if code, _, stderr := runs(t, nil, "check"); code != exitUsage || !strings.Contains(stderr, `expected "<path> ..."`) {
		t.Errorf("without a path: exit code %d, %q, want 2 and what is missing", code, stderr)
	}
}

// TestTheExampleIsClean: what a newcomer sees first has not even a warning.
func TestTheExampleIsClean(t *testing.T) {
	code, stdout, _ := runs(t, nil, "check", "--strict", "../../examples/quickstart.yaml")
	if code != exitOK || !strings.HasPrefix(stdout, "domain quickstart: 5 rules\n") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}
