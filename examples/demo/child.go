package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a program that the demo has started.
type child struct {
	name string
	cmd  *exec.Cmd

	found chan string   // what it said when it was ready
	done  chan struct{} // closed when it has ended
	err   error         // how; to be read after done

	said lines
}

// startChild starts a program. Ready finds in what it prints, in the first group, what ready returns. With nil only its
// errors are looked at: then what it prints is a log that nobody reads.
func startChild(name, bin string, ready *regexp.Regexp, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(bin, args...), found: make(chan string, 1), done: make(chan struct{})}
	// Settings of ration, and keys of real models, are nothing to the demo.
	c.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "ANTHROPIC_API_KEY=shared", "OPENAI_API_KEY=shared"}
	c.cmd.SysProcAttr = ownGroup() // a Ctrl-C is the demo's, which ends the others in good order
	c.cmd.Stderr = &c.said
	if ready != nil {
		c.cmd.Stdout = &c.said
		c.said.take = func(line string) {
			if m := ready.FindStringSubmatch(line); m != nil {
				select {
				case c.found <- m[1]:
				default: // it is known
				}
			}
		}
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// ready waits until the program has said that it is, and returns what it said.
func (c *child) ready(ctx context.Context) (string, error) {
	select {
	case what := <-c.found:
		return what, nil
	case <-c.done:
		return "", c.ended()
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w\n%s", c.name, context.Cause(ctx), c.said.last())
	}
}

// ended says that the program has ended by itself, how, and what it said last.
func (c *child) ended() error {
	how := "exit status 0"
	if c.err != nil {
		how = c.err.Error()
	}
	return fmt.Errorf("%s has ended (%s)\n%s", c.name, how, c.said.last())
}

// end ends the program, in good order if it can.
func (c *child) end() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// lines is what a program prints, line by line. Safe for concurrent use.
type lines struct {
	take func(line string) // nil: nobody does

	mu   sync.Mutex
	rest []byte
	kept []string
}

// mostLines is how many lines of a program are kept, to be shown when it ends.
const mostLines = 12

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.rest = rest
		if l.take != nil {
			l.take(string(line))
		}
		if l.kept = append(l.kept, string(line)); len(l.kept) > mostLines {
			l.kept = l.kept[1:]
		}
	}
}

// last returns the lines that are kept.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimRight(strings.Join(append(slices.Clone(l.kept), string(l.rest)), "\n"), "\n")
}
