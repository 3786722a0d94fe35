package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// addresses say where what runs can be reached.
type addresses struct {
	envoy, fakellm string // URLs
	ration         string // host and port of gRPC
	policy         string // the file that ration reads
}

// stage is the programs that run, in the order in which they were started.
type stage struct {
	dir      string // for files that they need
	fail     context.CancelCauseFunc
	children []*child
}

// clear ends all programs, the last one first.
func (s *stage) clear() {
	for i := range s.children {
		s.children[len(s.children)-1-i].end()
	}
}

// start starts a program, whose end from now on is the demo's.
func (s *stage) start(name, bin string, ready *regexp.Regexp, args ...string) (*child, error) {
	c, err := startChild(name, bin, ready, args...)
	if err != nil {
		return nil, err
	}
	s.children = append(s.children, c)
	go func() {
		<-c.done
		s.fail(c.ended())
	}()
	return c, nil
}

// What the programs print when they are ready. All choose free ports themselves, so the demo runs beside anything.
var (
	fakellmReady = regexp.MustCompile(`^fakellm listens on (http://\S+)$`)
	rationReady  = regexp.MustCompile(`^  gRPC +(\S+) `)
)

// build starts the model, ration and Envoy, and returns when calls can be made.
func (p *program) build(ctx, running context.Context, s *stage) (where addresses, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not ready within %v", patience))
	defer cancel()
	defer context.AfterFunc(running, cancel)()

	fakellm, err := s.start("fakellm", p.FakeLLM, fakellmReady, "--addr", "127.0.0.1:0",
		"--script", "first-byte=200ms tokens-per-second=120")
	if err != nil {
		return where, err
	}
	ration, err := s.start("ration", p.Ration, rationReady, "serve", "--banner", "--policy", p.Policy, "--store", "memory",
		"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--metrics-addr", "", "--debug-addr", "", "--admin-addr", "",
		"--drain-delay", "0s")
	if err != nil {
		return where, err
	}
	where.policy = p.Policy
	if where.fakellm, err = fakellm.ready(ctx); err != nil {
		return where, orCause(running, err)
	}
	if where.ration, err = ration.ready(ctx); err != nil {
		return where, orCause(running, err)
	}

	config, admin := filepath.Join(s.dir, "envoy.json"), filepath.Join(s.dir, "admin")
	if err := moveBootstrap(p.Bootstrap, config, where); err != nil {
		return where, err
	}
	if _, err := s.start("Envoy", cmp.Or(p.Envoy, ".cache/venv/bin/envoy"), nil, "--config-path", config, "--admin-address-path", admin,
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "error"); err != nil {
		return where, fmt.Errorf("%w (`make demo` installs one; RATION_ENVOY names another)", err)
	}
	for {
		if where.envoy, err = listener(ctx, admin); err == nil {
			return where, nil
		}
		select {
		case <-ctx.Done():
			return where, orCause(running, fmt.Errorf("Envoy is not ready: %w", err)) //nolint:staticcheck // a name
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listener returns where Envoy listens, once it is ready. Its admin address is in a file.
func listener(ctx context.Context, adminFile string) (string, error) {
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		return "", err
	}
	if _, err := get(ctx, fmt.Sprintf("http://%s/ready", admin)); err != nil {
		return "", err
	}
	told, err := get(ctx, fmt.Sprintf("http://%s/listeners", admin)) // name::address, one in a line
	if err != nil {
		return "", err
	}
	_, addr, found := strings.Cut(strings.TrimSpace(string(told)), "::")
	if !found || strings.Contains(addr, "\n") {
		return "", fmt.Errorf("want one listener, not %q", told)
	}
	return "http://" + addr, nil
}

// get reads a page, which has to be there.
func get(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// getJSON reads a page into a value.
func getJSON(ctx context.Context, url string, into any) error {
	page, err := get(ctx, url)
	if err != nil {
		return err
	}
	return json.Unmarshal(page, into)
}
