package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBannerWalksThrough pastes what the banner says into a shell, as a newcomer does.
func TestBannerWalksThrough(t *testing.T) {
	p := start(t, map[string]string{
		"RATION_GRPC_ADDR": "127.0.0.1:0", "RATION_HTTP_ADDR": "", "RATION_METRICS_ADDR": "", "RATION_DEBUG_ADDR": "",
		"RATION_ADMIN_ADDR": "", "RATION_DRAIN_DELAY": "0s",
	}, "serve", "--banner", "--policy", "../../examples/policies/llm.yaml")
	eventually(t, "the banner is complete", func() error {
		if !strings.Contains(p.said(), "Ctrl-C ends it.") {
			return os.ErrNotExist
		}
		return nil
	})
	_, walk, found := strings.Cut(p.said(), "see what was used:\n\n")
	walk, _, _ = strings.Cut(walk, "\n\n")
	if !found {
		t.Fatal("the banner has no commands to account for a call")
	}
	shell := exec.Command("bash", "-euo", "pipefail", "-c", walk)
	shell.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nsaid\n%s", err, walk, out)
	}
	for _, want := range []string{"settled, cost $0.00172", "llm.user.tokens", "The call would be admitted."} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the walk says nothing of %q:\n%s", want, out)
		}
	}
	p.stop(t)
}
