// Package docs_test runs every console example of the README and of docs/ and compares what it
// prints with what the page says.
package docs_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/redis/redistest"
)

// example is one command of a page with the output that the page shows. In it … stands for
// anything, a line of its own for any number of lines.
type example struct {
	place, command, output string
}

// examples reads the console blocks of a page: lines that begin with "$ " are commands, "> "
// continues one, and everything else is output.
func examples(t *testing.T, page string) []example {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var found []example
	inside := false
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			found = append(found, example{place: fmt.Sprintf("%s:%d", filepath.Base(page), n+1), command: line[2:] + "\n"})
		case len(found) == 0:
			t.Fatalf("%s:%d: output before any command", page, n+1)
		case strings.HasPrefix(line, "> "):
			found[len(found)-1].command += line[2:] + "\n"
		default:
			found[len(found)-1].output += line + "\n"
		}
	}
	return found
}

func TestExamples(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := tools(t, root)
	for _, page := range []string{
		"README.md", "docs/debugging.md", "docs/operating.md", "docs/policy.md", "docs/prices.md", "docs/accounting.md",
		"docs/client.md", "docs/access.md", "docs/events.md", "docs/capacity.md", "examples/lanes/README.md",
	} {
		t.Run(page, func(t *testing.T) {
			all := examples(t, filepath.Join(root, page))
			if len(all) == 0 {
				t.Fatal("the page has no examples")
			}
			s := newSite(t, root, bin)
			if slices.ContainsFunc(all, func(e example) bool { return strings.HasPrefix(e.command, "redis-cli ") }) {
				s.withRedis(t)
			}
			if slices.ContainsFunc(all, func(e example) bool { return strings.Contains(e.command, "openssl ") }) {
				if _, err := exec.LookPath("openssl"); err != nil {
					t.Fatalf("there is no openssl: %v (`make test` installs it)", err)
				}
			}
			if slices.ContainsFunc(all, func(e example) bool { return strings.Contains(e.command, "~/") }) {
				s.home = t.TempDir()
			}
			if all[0].command == "make demo\n" {
				tryDemo(t, s)
				all = all[1:]
			}
			switch {
			case all[0].command == "make run\n":
				said := s.serve(t, "make", "run")
				all = all[1:]
				for _, promised := range []string{s.ports["8081"], s.ports["8080"], "5 requests per minute", "grpcurl -plaintext"} {
					if !strings.Contains(said(), promised) {
						t.Errorf("make run does not print %q, but:\n%s", promised, said())
					}
				}
			case !slices.ContainsFunc(all, serves):
				s.serve(t, filepath.Join(bin, "ration"), "serve", "--policy", "examples/quickstart.yaml")
			}
			waitForFreshMinute()
			for _, e := range all {
				if serves(e) {
					s.serve(t, "bash", "-c", s.here(e.command))
					continue
				}
				if strings.Contains(e.command, "./examples/fakellm ") {
					s.standIn(t, e)
					continue
				}
				if got := s.run(e.command); !matches(e.output, got) {
					t.Errorf("%s: %s\nprinted:\n%s\nthe page says:\n%s", e.place, e.command, got, e.output)
				}
			}
		})
	}
}

// tryDemo runs the demo for a moment. examples/demo tests what it shows; here, that the command of the page gets there.
func tryDemo(t *testing.T, s *site) {
	t.Helper()
	printed := s.run("make demo ARGS='--for 4s'")
	for _, promised := range []string{"ann +premium +served", "bob +pro +served", "carol +free +(served|throttled)", "carol +claude-haiku-4-5 .* \\$0\\.0"} {
		if !regexp.MustCompile("(?m)^" + promised).MatchString(printed) {
			t.Errorf("make demo does not print a line like %q, but:\n%s", promised, printed)
		}
	}
}

// serves says that an example is the server that those after it talk to, in place of one before it.
func serves(e example) bool {
	return strings.Contains(e.command, "ration serve ") || strings.HasPrefix(e.command, "make run POLICY=")
}

// tools makes a directory with the programs that the pages call.
func tools(t *testing.T, root string) string {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "ration"), "./cmd/ration")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build ration: %v\n%s", err, out)
	}
	grpcurl := exec.Command("go", "build", "-modfile=tools/grpcurl/go.mod", "-o", filepath.Join(bin, "grpcurl"),
		"github.com/fullstorydev/grpcurl/cmd/grpcurl")
	grpcurl.Dir = root
	if out, err := grpcurl.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	return bin
}

// site is one running ration, on ports of its own in place of those that the pages name.
type site struct {
	root, bin string
	ports     map[string]string // by those of the pages
	home      string            // of who runs the commands; empty: as outside
	end       func()            // ends the server that runs; nil: none does
}

func newSite(t *testing.T, root, bin string) *site {
	s := &site{root: root, bin: bin, ports: map[string]string{}}
	for _, port := range []string{"8080", "8081", "9090", "6070", "8082", "8090"} {
		s.ports[port] = strconv.Itoa(redistest.FreePort(t))
	}
	return s
}

// withRedis runs a Redis, which is the one that redis-cli talks to.
func (s *site) withRedis(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatalf("there is no redis-cli: %v (`make test` installs it)", err)
	}
	_, port, err := net.SplitHostPort(redistest.Start(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.ports["6379"] = port
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec %s -p %s \"$@\"\n", program, port)
	if err := os.WriteFile(filepath.Join(dir, "redis-cli"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.bin = dir + string(os.PathListSeparator) + s.bin
}

func (s *site) environment() []string {
	addr := func(port string) string { return "127.0.0.1:" + s.ports[port] }
	// A make that runs this test is not to be seen by those that the pages call.
	outside := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	if s.home != "" {
		outside = append(outside, "HOME="+s.home)
	}
	return append(outside, "PATH="+s.bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"RATION_HTTP_ADDR="+addr("8080"), "RATION_GRPC_ADDR="+addr("8081"),
		"RATION_METRICS_ADDR="+addr("9090"), "RATION_DEBUG_ADDR="+addr("6070"), "RATION_DRAIN_DELAY=0s",
		"RATION_ADMIN_ADDR="+addr("8082"), "RATION_SERVER="+addr("8081"), "RATION_ADMIN="+addr("8082"),
		"MODEL_URL=http://"+addr("8090")+"/v1/chat/completions")
}

// serve starts ration and waits until it is well; it ends with the test, or when another is started. It returns what
// tells what ration has said so far.
func (s *site) serve(t *testing.T, name string, args ...string) (said func() string) {
	t.Helper()
	if s.end != nil {
		s.end()
	}
	said, s.end = s.start(t, name, args...)
	waitUntil(t, "ration did not get ready", func() bool { return s.isWell(strings.Join(args, " ")) })
	return said
}

// standIn starts the model of a page and waits until it says what the page does; it ends with the test.
func (s *site) standIn(t *testing.T, e example) {
	t.Helper()
	said, _ := s.start(t, "bash", "-c", s.here(e.command))
	waitUntil(t, "the model did not get ready", func() bool { return matches(e.output, said()) })
}

// start starts a program. It ends with the test, or by end. Said tells what it has said so far.
func (s *site) start(t *testing.T, name string, args ...string) (said func() string, end func()) {
	t.Helper()
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	said = func() string {
		text, _ := os.ReadFile(output.Name())
		return string(text)
	}
	c := exec.Command(name, args...)
	c.Dir, c.Env = s.root, s.environment()
	c.Stdout, c.Stderr = output, output
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		_ = c.Wait()
		_ = output.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said())
		}
	})
	t.Cleanup(end)
	return said, end
}

// waitUntil waits for something that has to happen; some build programs first.
func waitUntil(t *testing.T, otherwise string, happens func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !happens(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// isWell reports whether the server that was started so answers. Over TLS it need not answer everybody: there it is
// enough that it listens at the last of its addresses.
func (s *site) isWell(started string) bool {
	if !strings.Contains(started, "--http-tls") {
		return s.run("curl -s localhost:8080/healthcheck") == "OK"
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", "127.0.0.1:"+s.ports["8082"])
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func (s *site) run(command string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // some build programs first
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", s.here(command))
	c.Dir, c.Env = s.root, s.environment()
	out, _ := c.CombinedOutput() // what failed shows in what was printed
	return string(out)
}

// here is a command of a page with the ports of this site.
func (s *site) here(command string) string {
	for page, port := range s.ports {
		command = strings.ReplaceAll(command, "localhost:"+page, "localhost:"+port)
	}
	return command
}

// waitForFreshMinute lets a minute end that has too little left to count in: the examples show
// limits per minute, from their beginning.
func waitForFreshMinute() {
	if left := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)); left < 20*time.Second {
		time.Sleep(left)
	}
}

func matches(want, got string) bool {
	pattern := regexp.QuoteMeta(strings.TrimSpace(want))
	pattern = regexp.MustCompile(`(?m)^…$`).ReplaceAllString(pattern, `(?s:.*)`)
	pattern = strings.ReplaceAll(pattern, "…", ".*")
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.TrimSpace(got))
}

// Every policy that a page shows is one, and is free of warnings.
func TestPolicies(t *testing.T) {
	fence := regexp.MustCompile("(?s)```yaml\n(domain:.*?)```")
	for _, page := range []string{"../README.md", "policy.md", "prices.md", "algorithms.md", "lanes.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		shown := fence.FindAllStringSubmatch(string(text), -1)
		if len(shown) == 0 {
			t.Errorf("%s shows no policy", page)
		}
		for _, s := range shown {
			if _, _, err := policy.Parse([]policy.Source{{Name: page, Data: []byte(s[1])}}, policy.Options{Strict: true}); err != nil {
				t.Errorf("%v\n%s", err, s[1])
			}
		}
	}
}

// Links between the pages lead somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md", "../bench/README.md", "../examples/lanes/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), l[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, l[1], err)
			}
		}
	}
}

// The user that docs/operating.md makes may run what the scripts of Redis call, and hear of changes of subjects, and
// nothing else.
func TestPermissions(t *testing.T) {
	needed := map[string]bool{"eval": true, "evalsha": true, "script|load": true, "subscribe": true}
	call := regexp.MustCompile(`call\('([A-Z]+)'`)
	for _, folder := range []string{"../store/redis/lua", "../subject/redis/lua"} {
		scripts := os.DirFS(folder)
		err := fs.WalkDir(scripts, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := fs.ReadFile(scripts, name)
			for _, c := range call.FindAllStringSubmatch(string(text), -1) {
				needed[strings.ToLower(c[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	allowed := map[string]bool{}
	for _, e := range examples(t, "operating.md") {
		if !strings.HasPrefix(e.command, "redis-cli ACL SETUSER") {
			continue
		}
		for _, m := range regexp.MustCompile(`\+([a-z|]+)`).FindAllStringSubmatch(e.command, -1) {
			allowed[m[1]] = true
		}
	}
	if !maps.Equal(allowed, needed) {
		t.Errorf("the page allows %v,\nthe script needs %v", slices.Sorted(maps.Keys(allowed)), slices.Sorted(maps.Keys(needed)))
	}
}

// docs/accounting.md explains every reason that an error may carry, and no other.
func TestReasons(t *testing.T) {
	source, err := os.ReadFile("../server/failure/reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("accounting.md")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string, in []byte) (all []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(in, -1) {
			all = append(all, string(m[1]))
		}
		slices.Sort(all)
		return all
	}
	_, table, _ := strings.Cut(string(page), "\n## Errors\n")
	table, _, _ = strings.Cut(table, "\n## ")
	explained, known := find("(?m)^\\| `([A-Z_]+)` \\|", []byte(table)), find(`Reason\s+= "([A-Z_]+)"`, source)
	if len(known) == 0 || !slices.Equal(explained, known) {
		t.Errorf("the page explains %v\nthere are        %v", explained, known)
	}
}

// The metrics that docs/operating.md watches are there.
func TestWatchedMetrics(t *testing.T) {
	known, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("operating.md")
	if err != nil {
		t.Fatal(err)
	}
	watched := regexp.MustCompile(`ration_[a-z_]+`).FindAllString(string(page), -1)
	if len(watched) == 0 {
		t.Error("the page watches no metrics")
	}
	for _, name := range watched {
		if !strings.Contains(string(known), "`"+name+"`") {
			t.Errorf("operating.md watches %s, which metrics.md does not know", name)
		}
	}
}

// docs/metrics.md explains every metric that there is.
func TestMetricsAreExplained(t *testing.T) {
	page, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`"(ration_[a-z_]*[a-z])"`)
	found := 0
	for _, folder := range []string{"engine", "server", "store", "subject", "cmd"} {
		err := fs.WalkDir(os.DirFS(filepath.Join("..", folder)), ".", func(file string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			source, err := os.ReadFile(filepath.Join("..", folder, file))
			for _, m := range name.FindAllStringSubmatch(string(source), -1) {
				found++
				if !strings.Contains(string(page), "`"+m[1]+"`") {
					t.Errorf("%s/%s has %s, which the page does not know", folder, file, m[1])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("there are no metrics")
	}
}
