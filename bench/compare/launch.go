package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/bench/internal/cputime"
	"github.com/rationhq/ration/bench/internal/loadgen"
)

// A launcher starts contestants.
type launcher struct {
	// binaries are the paths that {bin:NAME} stands for.
	binaries map[string]string
	// policy is the absolute path of the plain policy, limitsPolicy that of the one in ration's own language,
	// accountsPolicy that of the directory with those of the suite accounts, lanesPolicy that of the suite lanes, and
	// rulesPolicy that of the one with many rules.
	policy, limitsPolicy, accountsPolicy, lanesPolicy, rulesPolicy string
	// redisServer is the program that a contestant's Redis is started with.
	redisServer string
	// dir is where every instance gets a directory of its own.
	dir string
	// connections is how many connections the load comes over.
	connections int
}

const (
	// startPatience is how long a contestant may take to its first answer.
	startPatience = 30 * time.Second
	// callTimeout is the deadline of every call: far above any latency worth printing.
	callTimeout = 5 * time.Second
)

// An instance is a contestant that runs, with a Redis of its own if it needs one, and a connection to it.
type instance struct {
	contestant
	server *process
	redis  *process // nil without one
	meter  *redis.Client
	client *loadgen.Client
	addr   string
	// heap is the address of its heap profile; empty if there is none.
	heap string
	// firstAnswer is the time from starting the process to its first answer.
	firstAnswer time.Duration
}

// start starts a contestant and returns when it has answered a call, and answered right what is to be asked.
func (l launcher) start(ctx context.Context, c contestant, asked []scenario) (*instance, error) {
	return l.launch(ctx, c, asked, nil)
}

// replica starts another process of a contestant on the same Redis.
func (l launcher) replica(ctx context.Context, of *instance) (*instance, error) {
	return l.launch(ctx, of.contestant, nil, of)
}

func (l launcher) launch(ctx context.Context, c contestant, asked []scenario, of *instance) (_ *instance, err error) {
	started := &instance{contestant: c}
	defer func() {
		if err != nil {
			err = fmt.Errorf("contestant %s: %w", c.Name, err)
			if started.server != nil {
				err = fmt.Errorf("%w\n%s", err, started.server.lastWords())
			}
			started.stop()
		}
	}()
	dir, err := os.MkdirTemp(l.dir, c.Name+"-")
	if err != nil {
		return nil, err
	}
	ports := &freePorts{}
	if of != nil {
		ports.byName = map[string]string{"redis": of.meter.Options().Addr}
	}
	defer ports.release()
	command, env, err := l.prepare(c, ports, dir)
	if err != nil {
		return nil, err
	}
	if started.heap, err = l.fill(c.Heap, ports, dir); err != nil {
		return nil, err
	}
	if started.addr, err = ports.addr("grpc"); err != nil {
		return nil, err
	}
	redisAddr, err := ports.addr("redis")
	if err != nil {
		return nil, err
	}
	ports.release()
	if c.needsRedis() && of == nil {
		if err := started.startRedis(ctx, l.redisServer, redisAddr, dir); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if started.server, err = startProcess(command, env, dir, "server.log"); err != nil {
		return nil, err
	}
	if err := started.server.waitForPort(ctx, started.addr); err != nil {
		return nil, err
	}
	started.client, err = loadgen.Connect(ctx, started.addr, l.connections, callTimeout)
	if err != nil {
		return nil, err
	}
	started.firstAnswer = time.Since(began)
	if err := checkAnswers(ctx, started.addr, c.counts(), asked); err != nil {
		return nil, err
	}
	return started, nil
}

func (i *instance) startRedis(ctx context.Context, program, addr, dir string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	command := []string{
		program, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--loglevel", "warning",
	}
	if i.redis, err = startProcess(command, nil, dir, "redis.log"); err != nil {
		return fmt.Errorf("redis-server (Debian: apt-get install redis-server, or give --redis-server): %w", err)
	}
	if err := i.redis.waitForPort(ctx, addr); err != nil {
		return fmt.Errorf("redis-server: %w\n%s", err, i.redis.lastWords())
	}
	i.meter = redis.NewClient(&redis.Options{Addr: addr})
	return i.meter.Ping(ctx).Err()
}

// meters meter the CPU time of the instance.
func (i *instance) meters() loadgen.Meters {
	meters := loadgen.Meters{Server: cputime.Process(i.server.pid())}
	if i.meter != nil {
		meters.Redis = cputime.Redis(i.meter)
	}
	return meters
}

// stop ends the instance at once; nothing it holds is of any worth.
func (i *instance) stop() {
	if i.client != nil {
		_ = i.client.Close()
	}
	if i.meter != nil {
		_ = i.meter.Close()
	}
	for _, process := range []*process{i.server, i.redis} {
		if process != nil {
			process.kill()
		}
	}
}

// prepare fills in the placeholders of the command and its environment.
func (l launcher) prepare(c contestant, ports *freePorts, dir string) (command, env []string, err error) {
	for _, argument := range c.Command {
		filled, failed := l.fill(argument, ports, dir)
		command, err = append(command, filled), errors.Join(err, failed)
	}
	for name, text := range c.Env {
		filled, failed := l.fill(text, ports, dir)
		env, err = append(env, name+"="+filled), errors.Join(err, failed)
	}
	return command, env, err
}

// fill fills in the placeholders of a text.
func (l launcher) fill(text string, ports *freePorts, dir string) (string, error) {
	return expand(text, func(name, argument string) (string, error) {
		switch name {
		case "policy":
			return l.policy, nil
		case "policy_dir":
			return filepath.Dir(l.policy), nil
		case "limits_policy":
			return l.limitsPolicy, nil
		case "accounts_policy":
			return l.accountsPolicy, nil
		case "lanes_policy":
			return l.lanesPolicy, nil
		case "rules_policy":
			return l.rulesPolicy, nil
		case "dir":
			return dir, nil
		case "self":
			return os.Executable()
		case "bin":
			path, given := l.binaries[argument]
			if !given {
				return "", fmt.Errorf("where is its binary? Give --bin %s=PATH", argument)
			}
			return filepath.Abs(path)
		case "grpc", "redis":
			return ports.addr(name)
		case "grpc_port", "redis_port":
			return ports.port(strings.TrimSuffix(name, "_port"))
		case "redis_url":
			addr, err := ports.addr("redis")
			return "redis://" + addr, err
		case "addr":
			return ports.addr("own." + argument)
		case "port":
			return ports.port("own." + argument)
		}
		return "", checkPlaceholder(name, argument)
	})
}

// freePorts finds free ports on 127.0.0.1 and remembers them by name. Until they are released they are kept busy,
// so that no two names get the same one.
type freePorts struct {
	byName map[string]string
	kept   []net.Listener
}

func (f *freePorts) addr(name string) (string, error) {
	if addr, found := f.byName[name]; found {
		return addr, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	f.kept = append(f.kept, listener)
	if f.byName == nil {
		f.byName = make(map[string]string)
	}
	f.byName[name] = listener.Addr().String()
	return f.byName[name], nil
}

func (f *freePorts) port(name string) (string, error) {
	addr, err := f.addr(name)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(addr)
	return port, err
}

func (f *freePorts) release() {
	for _, listener := range f.kept {
		_ = listener.Close()
	}
	f.kept = nil
}

// A process is a child in a process group of its own, with its output in a file.
type process struct {
	command *exec.Cmd
	log     string
	exited  chan struct{}
}

// startProcess starts a child that sees only env and the few variables that programs need to run at all: settings
// such as GOGC in the shell of whoever runs the benchmark must not decide it.
func startProcess(command, env []string, dir, log string) (*process, error) {
	started := &process{
		command: exec.Command(command[0], command[1:]...), log: filepath.Join(dir, log), exited: make(chan struct{}),
	}
	output, err := os.Create(started.log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	started.command.Stdout, started.command.Stderr = output, output
	started.command.Dir = dir
	started.command.Env = env
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, set := os.LookupEnv(name); set {
			started.command.Env = append(started.command.Env, name+"="+value)
		}
	}
	started.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := started.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = started.command.Wait() // how it ended stands in ProcessState
		close(started.exited)
	}()
	return started, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

// alive returns an error that tells how the process ended, if it did.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("ended by itself: %s", p.command.ProcessState)
	default:
		return nil
	}
}

// waitForPort returns when something accepts connections at addr, or with an error when the process ends before.
func (p *process) waitForPort(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	var dialer net.Dialer
	for {
		connection, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-p.exited:
			return p.alive()
		case <-ctx.Done():
			return fmt.Errorf("does not listen on %s: %w", addr, context.Cause(ctx))
		case <-again.C:
		}
	}
}

func (p *process) kill() {
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.exited
}

// lastWords returns the command line and the end of what the process has written.
func (p *process) lastWords() string {
	const enough = 4 << 10
	output, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(output) > enough {
		output = append([]byte("…"), output[len(output)-enough:]...)
	}
	quoted := make([]string, len(p.command.Args))
	for i, argument := range p.command.Args {
		quoted[i] = strconv.Quote(argument)
	}
	return fmt.Sprintf("command: %s\noutput:\n%s", strings.Join(quoted, " "), output)
}
