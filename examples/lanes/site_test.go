package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// rationBinary and fakellmBinary are what the examples talk to. TestMain builds both, once.
var rationBinary, fakellmBinary string

// asExample in the environment makes the test binary the example itself, so that it is tested as a program.
const asExample = "RATION_TEST_AS_LANES"

func TestMain(m *testing.M) {
	if os.Getenv(asExample) != "" {
		main()
		return
	}
	os.Exit(func() int {
		// Files are named as from the root.
		if err := os.Chdir("../.."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "ration-lanes-test")
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

// patience is how long a test waits for what has to come.
const patience = time.Minute

// site is a ration with the policy of the examples, a model, and a witness between ration and the example.
type site struct {
	ration  *grpc.ClientConn
	witness *witness
	// addresses of the witness and of ration's metrics, and the URL of the model.
	server, metrics, model string
}

// setting is how a site differs from what the README starts.
type setting struct {
	store  string            // URL; empty: in memory
	policy map[string]string // what stands in the policy, and what is to stand there instead
	script string            // of the model
	breaks bool              // connections to ration break
}

func newSite(t *testing.T, as setting) *site {
	t.Helper()
	policy, err := os.ReadFile("examples/lanes/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for old, instead := range as.policy {
		if !bytes.Contains(policy, []byte(old)) {
			t.Fatalf("the policy does not say %q", old)
		}
		policy = bytes.ReplaceAll(policy, []byte(old), []byte(instead))
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		t.Fatal(err)
	}
	store := as.store
	if store == "" {
		store = "memory"
	}
	ration := start(t, rationBinary, nil, "serve", "--banner", "--policy", file, "--store", store, "--grpc-addr", "127.0.0.1:0",
		"--http-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--debug-addr", "", "--admin-addr", "", "--drain-delay", "0s")
	fakellm := start(t, fakellmBinary, nil, "--addr", "127.0.0.1:0", "--script", as.script)
	s := &site{}
	s.model = fakellm.says(t, `fakellm listens on (\S+)`)
	s.metrics = ration.says(t, `(?m)^  metrics +(\S+)`)

	s.ration, err = grpc.NewClient(ration.says(t, `(?m)^  gRPC +(\S+) `), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ration.Close() })
	s.witness = newWitness(t, rationv1.NewAccountingServiceClient(s.ration), as.breaks)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	rationv1.RegisterAccountingServiceServer(server, s.witness)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	s.server = listener.Addr().String()
	return s
}

// languages are those that the example is written in, with the command that runs it.
func languages() map[string][]string {
	return map[string][]string{
		"Go":     {os.Args[0]},
		"Python": {".cache/lanes/bin/python", "examples/lanes/lanes.py"},
	}
}

// example starts the example.
func (s *site) example(t *testing.T, command []string) *program {
	t.Helper()
	if _, err := os.Stat(command[0]); err != nil {
		t.Fatalf("there is no gRPC for Python: run `make test-deps`, which installs it (%v)", err)
	}
	environment := []string{asExample + "=1", "RATION_SERVER=" + s.server, "MODEL_URL=" + s.model + "/v1/chat/completions"}
	return start(t, command[0], environment, command[1:]...)
}

// program is one that runs until the test ends.
type program struct {
	*exec.Cmd

	done chan struct{} // closed when it has ended
	err  error         // how; to be read after done

	mu   sync.Mutex
	said bytes.Buffer
}

// start starts a program with more in its environment.
func start(t *testing.T, bin string, environment []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(bin, args...), done: make(chan struct{})}
	p.Env = append(os.Environ(), environment...)
	p.Stdout, p.Stderr = p, p
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = p.Process.Kill()
			<-p.done
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(bin), p.all())
		}
	})
	return p
}

// Write implements io.Writer, for what the program prints.
func (p *program) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(text)
}

func (p *program) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// says waits until the program says what matches, and returns the first group of it.
func (p *program) says(t *testing.T, pattern string) (found string) {
	t.Helper()
	wanted := regexp.MustCompile(pattern)
	eventually(t, fmt.Sprintf("%s says %q", p.Path, pattern), func() bool {
		if m := wanted.FindStringSubmatch(p.all()); m != nil {
			found = m[1]
			return true
		}
		select {
		case <-p.done:
			t.Fatalf("%s has ended: %v", p.Path, p.err)
		default:
		}
		return false
	})
	return found
}

// ends waits until the program has ended, and returns all that it has said, and its exit status.
func (p *program) ends(t *testing.T) (said string, status int) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.Path)
	}
	if exit := new(exec.ExitError); p.err != nil && !errors.As(p.err, &exit) {
		t.Fatal(p.err)
	}
	return p.all(), p.ProcessState.ExitCode()
}

// eventually waits for something that has to happen.
func eventually(t *testing.T, what string, happens func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happens(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}
