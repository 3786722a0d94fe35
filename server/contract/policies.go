package contract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// RunPolicies tries to load each of the bad policies: a reload must refuse it with the recorded text and keep the old
// policy, and the checker must print the text.
func (r *Runner) RunPolicies(ctx context.Context, host Host, policies []*Policy) (map[*Policy][]string, error) {
	results := map[*Policy][]string{}
	byEnv := map[string][]*Policy{}
	for _, p := range policies {
		byEnv[envName(p.Env)] = append(byEnv[envName(p.Env)], p)
	}
	for _, same := range byEnv {
		if err := r.runPolicies(ctx, host, same, results); err != nil {
			return results, err
		}
	}
	for _, p := range policies {
		if len(r.Target.Checker) == 0 {
			continue
		}
		mismatches, err := r.check(ctx, host.TempDir(), p)
		if err != nil {
			return results, err
		}
		results[p] = append(results[p], mismatches...)
	}
	return results, nil
}

func (r *Runner) runPolicies(
	ctx context.Context, host Host, policies []*Policy, results map[*Policy][]string,
) error {
	g := &groupRun{Runner: r, group: &Group{Env: policies[0].Env}, store: Redis, transport: GRPC}
	defer g.stop()
	redis := host.StartRedis()
	g.redis = &redis
	var err error
	if g.dir, err = newPolicyDir(host.TempDir(), Plain, nil); err != nil {
		return err
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	for _, p := range policies {
		bad, gone := &Step{Files: map[string]*string{}}, &Step{Files: map[string]*string{}}
		for name, text := range p.Files {
			bad.Files[name], gone.Files[name] = &text, nil
		}
		var want any
		if text := p.same(); text != "" {
			want = map[string]any{"rejected": text}
		}
		got, err := g.changeFiles(ctx, bad, want)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		switch diff := compare(want, got, nil); {
		case want != nil && len(diff) == 0:
		case r.Recorder != nil && got != policyLoaded:
			r.Recorder.keepPolicy(p, got)
		default:
			results[p] = append(results[p], diff...)
		}
		got, err = g.changeFiles(ctx, gone, policyLoaded)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		for _, m := range compare(policyLoaded, got, nil) {
			results[p] = append(results[p], "after the bad files are gone: "+m)
		}
	}
	return nil
}

// same is the part of the text that has to be the same.
func (p *Policy) same() string {
	if p.SameUpTo != "" {
		return p.SameUpTo
	}
	return p.Error
}

// check runs the checker over a bad policy.
func (r *Runner) check(ctx context.Context, dir string, p *Policy) ([]string, error) {
	for name, text := range p.Files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	cmd := commandWithEnv(ctx, append(slices.Clone(r.Target.Checker), dir), p.Env)
	out, err := cmd.CombinedOutput()
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return []string{fmt.Sprintf("the checker accepts the policy; it printed:\n%s", out)}, nil
	case !errors.As(err, &exit):
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, p.same()) {
			return nil, nil
		}
	}
	return []string{fmt.Sprintf("the checker does not say %q; it printed:\n%s", p.same(), out)}, nil
}

// commandWithEnv is a command that gets the given environment and of the runner's own only PATH and HOME.
func commandWithEnv(ctx context.Context, words []string, env map[string]string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}
