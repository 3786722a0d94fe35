package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rationBinary and fakellmBinary are what the demo starts. TestMain builds both, once.
var rationBinary, fakellmBinary string

// asDemo in the environment makes the test binary the demo itself, so that it is tested as a program.
const asDemo = "RATION_TEST_AS_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
		return
	}
	os.Exit(func() int {
		// The demo names files as from the root.
		if err := os.Chdir("../.."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "ration-demo-test")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		for binary, source := range map[*string]string{&rationBinary: "./cmd/ration", &fakellmBinary: "./examples/fakellm"} {
			*binary = filepath.Join(dir, filepath.Base(source))
			if out, err := exec.Command("go", "build", "-o", *binary, source).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", source, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// started is a demo that runs.
type started struct {
	cmd   *exec.Cmd
	lines chan string // what it prints; closed when it has ended
	all   []string    // what was read of it
}

// start starts the demo with a program in place of Envoy, or with Envoy where it is empty.
func start(t *testing.T, envoy string, flags ...string) *started {
	t.Helper()
	if envoy == "" {
		envoy = envoyBinary(t)
	}
	s := &started{lines: make(chan string, 10_000)}
	s.cmd = exec.Command(os.Args[0], append([]string{"--ration", rationBinary, "--fakellm", fakellmBinary, "--envoy", envoy}, flags...)...)
	s.cmd.Env = append(os.Environ(), asDemo+"=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		defer r.Close()
		for said := bufio.NewScanner(r); said.Scan(); {
			s.lines <- said.Text()
		}
		close(s.lines)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		_ = s.cmd.Wait() // it may have been waited for
		if t.Failed() {
			t.Logf("the demo printed:\n%s", strings.Join(s.all, "\n"))
		}
	})
	return s
}

// until reads what the demo prints until a line matches, and returns its groups.
func (s *started) until(t *testing.T, pattern string) []string {
	t.Helper()
	wanted, deadline := regexp.MustCompile(pattern), time.After(4*patience)
	for {
		select {
		case said, ok := <-s.lines:
			if !ok {
				t.Fatalf("the demo has ended without a line that matches %s", pattern)
			}
			s.all = append(s.all, said)
			if m := wanted.FindStringSubmatch(said); m != nil {
				return m
			}
		case <-deadline:
			t.Fatalf("the demo has printed no line that matches %s", pattern)
		}
	}
}

// end reads the rest and returns how the demo has ended.
func (s *started) end() (rest []string, err error) {
	for said := range s.lines {
		s.all, rest = append(s.all, said), append(rest, said)
	}
	return rest, s.cmd.Wait()
}

// envoyBinary finds Envoy: where RATION_ENVOY says, or where `make test` installs it.
func envoyBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("RATION_ENVOY"); bin != "" {
		return bin
	}
	const installed = ".cache/venv/bin/envoy"
	if _, err := os.Stat(installed); err != nil {
		t.Fatal("there is no Envoy in .cache/venv: run `make test`, which installs it (or set RATION_ENVOY to an Envoy 1.40)")
	}
	return installed
}

// try runs a command that the demo shows.
func try(t *testing.T, lines []string, wanted string) {
	t.Helper()
	command := strings.ReplaceAll(strings.Join(lines, "\n"), "bin/ration ", rationBinary+" ")
	out, _ := exec.Command("bash", "-c", command).CombinedOutput() // what failed shows in what it printed
	if !regexp.MustCompile(wanted).Match(out) {
		t.Errorf("%s\nprints:\n%s\nwant %s", command, out, wanted)
	}
}

// The demo as somebody sees it who runs it in a pipe and ends it by Ctrl-C: three users are served, the one who asks and
// asks is refused and told why, and what each is charged is to the nano-dollar what the model has served.
func TestDemo(t *testing.T) {
	s := start(t, "")
	where := s.until(t, `behind Envoy at http://(\S+), with ration at (\S+)\.`)
	s.until(t, "bin/ration watch")
	try(t, s.all[2:6], "HTTP/1.1 (200|429) ")
	try(t, s.all[6:7], "tier pro")
	try(t, []string{"timeout 10 " + s.all[7] + " | head -n 1"}, "refusal llm user=carol")
	s.until(t, `carol +refused (Rate limit reached: 20 requests per minute on the free plan\. Try again in \d+ s\.|`+
		`Too many requests at once: at most 2 on the free plan\. Try again when one of them has ended\.)`)
	for _, user := range []string{"ann +premium", "bob +pro", "carol +free"} {
		s.until(t, user+` +(served|throttled|exhausted) +[1-9]`)
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	bill, err := s.end()
	if err != nil {
		t.Errorf("after Ctrl-C it ends with %v, want no error", err)
	}
	for _, addr := range where[1:] {
		if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
			conn.Close()
			t.Errorf("something listens still at %s", addr)
		}
	}

	// Dollars per million tokens, or nano-dollars per thousandth of one: of input and output.
	prices := map[string][2]int64{"claude-haiku-4-5": {1_000, 5_000}, "claude-sonnet-4-6": {3_000, 15_000}}
	row := regexp.MustCompile(`^(ann|bob|carol) +(claude-\S+) +(\d+) +([\d,]+) +([\d,]+) +\$(\d+)\.(\d+) +([\d,]+) +([\d,]+)$`)
	number := func(s string) int64 {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, ",", ""), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	text := strings.Join(bill, "\n")
	spent := map[string]int64{}
	for _, l := range bill {
		m := row.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		user, model, calls, input, output := m[1], m[2], number(m[3]), number(m[4]), number(m[5])
		cost := number(m[6])*1e9 + number((m[7] + "000000000")[:9])
		servedInput, servedOutput := number(m[8]), number(m[9])
		price := prices[model]
		spent[user] += cost
		if charged := input*price[0] + output*price[1]; cost != charged || calls == 0 {
			t.Errorf("%s\nis charged %d nano-dollars for its tokens, want %d, for some calls", l, cost, charged)
		}
		estimated := strings.Contains(text, "Of "+model+", "+user+" left ")
		switch due := servedInput*price[0] + servedOutput*price[1]; {
		case !estimated && cost != due:
			t.Errorf("%s\nis charged %d nano-dollars, want %d: what was served", l, cost, due)
		case estimated && user != "ann":
			t.Errorf("%s left calls before their end", user)
		case estimated && (input != servedInput || output > calls*longestAnswer):
			t.Errorf("%s\nis charged for other input than was served, or for more output than was asked for", l)
		}
	}
	for _, user := range users {
		inTable := regexp.MustCompile("(?m)^" + user + " .*  " + regexp.QuoteMeta(nanos(spent[user]).brief()) + " of ")
		if spent[user] == 0 || !inTable.MatchString(text) {
			t.Errorf("of the budget of %s not %d nano-dollars are spent, which is the sum of the bill", user, spent[user])
		}
	}
	if strings.Contains(text, "Unexpected") {
		t.Error("somebody was answered by something else than the model or a refusal")
	}
}

// With --for it ends by itself.
func TestDemoFor(t *testing.T) {
	s := start(t, "", "--for", "1s")
	s.until(t, "^By model, as ration has charged it")
	if _, err := s.end(); err != nil {
		t.Error(err)
	}
}

// A program that ends by itself ends the demo, with what it said last: before it was ready, and in the middle.
func TestDemoEndsWithAProgram(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ends := func(t *testing.T, s *started, wanted ...string) {
		t.Helper()
		_, err := s.end()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("it ends with %v, want exit status 1", err)
		}
		for _, words := range wanted {
			if !strings.Contains(strings.Join(s.all, "\n"), words) {
				t.Errorf("it does not say %q", words)
			}
		}
	}
	t.Run("at once", func(t *testing.T) {
		s := start(t, script("broken", "echo 'error: no such extension' >&2; exit 3"))
		ends(t, s, "demo: Envoy has ended (exit status 3)", "error: no such extension")
	})
	t.Run("while it runs", func(t *testing.T) {
		stop := filepath.Join(dir, "stop")
		s := start(t, script("dying", fmt.Sprintf(`%q "$@" &
trap 'kill $!; exit' TERM
while [ ! -e %q ]; do sleep 0.05; done
kill $!
echo 'caught something' >&2
exit 4`, envoyBinary(t), stop)))
		s.until(t, `ann +premium +served`)
		if err := os.WriteFile(stop, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ends(t, s, "demo: Envoy has ended (exit status 4)", "caught something")
	})
	t.Run("is not there", func(t *testing.T) {
		ends(t, start(t, filepath.Join(dir, "none")), "demo: start Envoy: ", "`make demo` installs one; RATION_ENVOY names another")
	})
}
