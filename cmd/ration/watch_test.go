package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/store/redis/redistest"
)

// watchWith runs ration watch, and returns its lines as they come.
func watchWith(t *testing.T, addr string, args ...string) (lines chan string, stop func()) {
	t.Helper()
	c := exec.Command(binary, append([]string{"watch", "--server", addr}, args...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines = make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = c.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := c.Wait(); err != nil {
			t.Errorf("ration watch: %v\n%s", err, &said)
		}
	}
	t.Cleanup(stop)
	return lines, stop
}

// TestWatch: what happens is printed as it happens, also what happens while the server cannot be reached, and nothing
// twice.
func TestWatch(t *testing.T) {
	grpcAddr := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	args := []string{"--policy", warningPolicy(t), "--data", filepath.Join(t.TempDir(), "data"), "--grpc-addr", grpcAddr}
	first := serve(t, args...)
	first.addrs(t)
	c := rationv1.NewAccountingServiceClient(connect(t, grpcAddr, insecure.NewCredentials()))
	text, stopText := watchWith(t, grpcAddr, "--after", "00", "--kind", "threshold")
	asJSON, stopJSON := watchWith(t, grpcAddr, "--after", "00", "--kind", "threshold", "--subject", "user=ann", "--format", "json")
	spend(t, c, "bob", "1", 150)
	spend(t, c, "ann", "2", 250)
	if got, want := <-text, `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ threshold 10% llm user=bob llm\.user\.tokens: You have used 15 % of your yearly quota `+
		`of 1,000 tokens: 150\. It resets (on|at) .*\(UTC\)\.`; !regexp.MustCompile("^" + want + "$").MatchString(got) {
		t.Errorf("printed %s\nwant %s", got, want)
	}
	var e struct {
		ID, Subject      string
		ThresholdPercent int
	}
	percents := map[int]bool{}
	for range 2 {
		if err := json.Unmarshal([]byte(<-asJSON), &e); err != nil || e.Subject != "user=ann" || e.ID == "" {
			t.Fatalf("%v: %+v", err, e)
		}
		percents[e.ThresholdPercent] = true
	}
	if !percents[10] || !percents[20] {
		t.Errorf("told of %v %%", percents)
	}
	<-text
	<-text
	first.stop(t)
	second := serve(t, args...)
	second.addrs(t)
	spend(t, c, "ann", "3", 100)
	if err := json.Unmarshal([]byte(<-asJSON), &e); err != nil || e.ThresholdPercent != 30 {
		t.Errorf("when the server is back: %v %+v", err, e)
	}
	if got := <-text; !strings.Contains(got, "user=ann") || !strings.Contains(got, "35 %") {
		t.Errorf("when the server is back: %s", got)
	}
	stopText()
	stopJSON()
	for name, lines := range map[string]chan string{"text": text, "json": asJSON} {
		for line := range lines {
			t.Errorf("%s: one too many: %s", name, line)
		}
	}
	second.stop(t)
}

// TestWatchCannotBeForged: whoever calls chooses the names in a line, and not how it reads.
func TestWatchCannotBeForged(t *testing.T) {
	var line strings.Builder
	w := watching{command: &watchCmd{Format: "text"}}
	err := w.print(&line, &rationv1.WatchEventsResponse{Kind: "threshold", Subject: "user=a\u202egpj\x1b[2K\nb", Message: "m\u2066x"})
	if got := line.String(); err != nil || got != " threshold user=a\ufffdgpj\ufffd[2K\ufffdb: m\ufffdx\n" {
		t.Errorf("%v, printed %q", err, got)
	}
}

// TestWatchMisuse: what can never work ends with an error, and so does a server that is not there.
func TestWatchMisuse(t *testing.T) {
	p := serve(t, "--policy", warningPolicy(t))
	addr := p.addrs(t).GRPC
	says(t, exitFailed, []string{"watch", "--server", addr, "--after", "yesterday"}, `ration: .*: after: "yesterday" is the id of no event: .*`)
	says(t, exitFailed, []string{"watch", "--server", addr, "--domain", "x"}, `ration: .*: no policy is in force for the domain: "x"`)
	says(t, exitFailed, []string{"watch", "--server", addr, "--kind", "weather"}, `ration: --kind.*`)
	says(t, exitFailed, []string{"watch", "--wait", "200ms", "--server", fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))}, `ration: 127.0.0.1:.*`)
	p.stop(t)
}
