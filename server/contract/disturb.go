package contract

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Answers of a change of the policy files.
const (
	policyLoaded = "loaded"
	policyUnseen = "unseen"
)

// unseenAfter is how long a change has to stay without effect to count as not seen.
const unseenAfter = 3 * time.Second

// changeFiles changes the policy and tells what the server made of it: "loaded", {rejected: text} or "unseen".
func (g *groupRun) changeFiles(ctx context.Context, s *Step, want any) (any, error) {
	mark, before := g.process.log.len(), g.dir.loaded
	if err := g.dir.change(s.Files, s.Write); err != nil {
		return nil, err
	}
	timeout := reloadTimeout
	if want == policyUnseen {
		timeout = unseenAfter
	}
	wantText := ""
	if w, ok := want.(map[string]any); ok {
		wantText, _ = w["rejected"].(string)
	}
	var names []string
	for name := range s.Files {
		names = append(names, name)
	}
	var outcome any = policyUnseen
	err := poll(ctx, timeout, func() error {
		if g.process.hasExited() {
			return errStop{fmt.Errorf("%w; it printed:\n%s", errExited, g.process.log.since(0))}
		}
		if _, loaded := g.process.answers(ctx, g.dir.generation); loaded {
			outcome = policyLoaded
			return nil
		}
		if text, found := rejection(g.process.log.since(mark), wantText, names, g.Recorder != nil && want == nil); found {
			outcome = map[string]any{"rejected": text}
			return nil
		}
		return errUndecided
	})
	if err != nil && !errors.Is(err, errUndecided) {
		return nil, err
	}
	if outcome == policyLoaded {
		g.dir.loaded = g.dir.generation
		return outcome, nil
	}
	// Whatever the server made of the change, it must go on with the policy it had.
	if _, kept := g.process.answers(ctx, before); !kept {
		return "the old policy is gone", nil
	}
	if g.Recorder != nil {
		// A server may still be at the last of several events of one change; its line must not count for the next.
		g.awaitQuietLog(ctx)
	}
	if outcome == policyUnseen && want != policyUnseen && g.Recorder == nil {
		return fmt.Sprintf("unseen for %s; the log since the change:\n%s", timeout, g.process.log.since(mark)), nil
	}
	return outcome, nil
}

// awaitQuietLog waits until nothing has been printed for a moment.
func (g *groupRun) awaitQuietLog(ctx context.Context) {
	for length := -1; length != g.process.log.len() && ctx.Err() == nil; {
		length = g.process.log.len()
		time.Sleep(150 * time.Millisecond)
	}
}

var errUndecided = errors.New("neither loaded nor refused")

// rejection finds the wanted text in a log. While recording it finds what follows the name of a changed file.
func rejection(log, want string, names []string, recording bool) (string, bool) {
	if want != "" && strings.Contains(unquoted.Replace(log), want) {
		return want, true
	}
	if !recording {
		return "", false
	}
	for line := range strings.Lines(log) {
		for _, name := range names {
			if before, text, found := strings.Cut(line, name+": "); found && !strings.HasSuffix(before, "/") {
				return unquoted.Replace(strings.TrimSuffix(strings.TrimSpace(text), `"`)), true
			}
		}
	}
	return "", false
}

// Things that a process step does.
const (
	processStart  = "start"
	processHangup = "SIGHUP"
)

// disturb starts the process or sends it a signal, and tells whether it lives: {process: lives}, or {process: exits}
// with what it said, as far as that was wanted.
func (g *groupRun) disturb(ctx context.Context, what string, want any) (any, error) {
	switch what {
	case processStart:
		if err := g.launch(ctx); err != nil && !errors.Is(err, errExited) {
			return nil, err
		}
	case processHangup:
		if err := g.process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return nil, err
		}
		w, _ := want.(map[string]any)
		if w["process"] == processLives {
			if g.process.exitsWithin(time.Second) {
				break
			}
			if _, loaded := g.process.answers(ctx, g.dir.generation); !loaded {
				return map[string]any{"process": "lives and does not answer"}, nil
			}
		} else {
			g.process.exitsWithin(reloadTimeout)
		}
	default:
		return nil, fmt.Errorf("no such thing to do to a process: %q", what)
	}
	if !g.process.hasExited() {
		return map[string]any{"process": processLives}, nil
	}
	got := map[string]any{"process": processExits}
	if w, ok := want.(map[string]any); ok {
		if says, ok := w["says"].(string); ok {
			got["says"] = g.process.log.since(0)
			if strings.Contains(unquoted.Replace(g.process.log.since(0)), says) {
				got["says"] = says
			}
		}
	}
	return got, nil
}

// touchRedis stops the store, or counts the keys that the step before has added.
func (g *groupRun) touchRedis(ctx context.Context, what string) (any, error) {
	if g.redis == nil {
		return nil, errors.New("a case with a redis step must say \"on: redis\"")
	}
	switch what {
	case "stop":
		g.redis.Stop()
		return "stopped", nil
	case "new keys":
		keys, err := g.redis.keys(ctx)
		return float64(keys - g.keys), err
	}
	return nil, fmt.Errorf("no such thing to do to redis: %q", what)
}
