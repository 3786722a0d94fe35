package main

import (
	"strings"
	"testing"
)

// TestHelp: it names every flag, and what somebody has to know before the first start.
func TestHelp(t *testing.T) {
	code, stdout, stderr := runs(t, nil, "serve", "--help")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	for _, f := range serveFlagsOf(read(t, nil, "version").model) {
		if !strings.Contains(stdout, "--"+f.Name) || f.Help == "" {
			t.Errorf("--%s is not explained", f.Name)
		}
		if f.HasDefault && !strings.Contains(f.Help, "Default "+f.Default+".") && f.Name != "store" {
			t.Errorf("--%s does not tell its default, which is %s", f.Name, f.Default)
		}
	}
	words := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{
		"--grpc-addr is RATION_GRPC_ADDR. The flag wins.", "Coming from envoyproxy/ratelimit?", "SIGHUP reads the policies again",
		"redis-cluster://", "Exit codes:", "ration serve --policy limits.yaml",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("the help lacks %q", want)
		}
	}
	if code, stdout, _ := runs(t, nil); code != exitOK || !strings.Contains(stdout, "serve") || !strings.Contains(stdout, "check") {
		t.Errorf("ration alone: exit code %d,\n%s\nwant the commands", code, stdout)
	}
}

// TestVersion: a build says at least with which Go it was made.
func TestVersion(t *testing.T) {
	code, stdout, _ := runs(t, nil, "version")
	if code != exitOK || !strings.HasPrefix(stdout, "ration ") || !strings.Contains(stdout, "\nbuilt with go1.") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}
