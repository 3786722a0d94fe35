package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/examples"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/health"
)

// options returns how policies are to be read.
func (f *policyFlags) options() policy.Options {
	return policy.Options{
		MergeDomains: f.MergeDomains, Strict: f.Strict, AllFiles: f.AllFiles, DotFiles: f.DotFiles, Now: time.Now,
	}
}

// policies are what a server decides by: files that may change, or the example.
type policies struct {
	watcher *policy.Watcher // nil: the example, which never changes
	engine  *engine.Engine
	metrics *engine.Metrics
	health  *health.State
	log     *slog.Logger
}

// load puts the policy in force that lies at paths, or the example where there are none. Its error
// has each problem on a line.
func (p *policies) load(paths []string, opts policy.Options) error {
	var loaded *policy.Policy
	var warnings []policy.Problem
	var err error
	if len(paths) == 0 {
		p.log.Warn("no --policy is given: an example is in force, which limits nobody but its own domain",
			"domain", examples.QuickstartDomain)
		source := policy.Source{Name: "examples/quickstart.yaml", Data: examples.Quickstart}
		loaded, warnings, err = policy.Parse([]policy.Source{source}, opts)
	} else {
		p.watcher = policy.NewWatcher(paths, opts, 0)
		loaded, warnings, err = p.watcher.Load()
	}
	if err != nil {
		return err
	}
	p.enforce(loaded, warnings)
	return nil
}

// watch puts every new version of the policy in force until ctx ends.
func (p *policies) watch(ctx context.Context) {
	if p.watcher == nil {
		return
	}
	p.watcher.Watch(ctx, func(loaded *policy.Policy, warnings []policy.Problem, err error) {
		if err != nil {
			p.reject(err)
			return
		}
		p.enforce(loaded, warnings)
	})
}

// reload reads the policy again even if nothing seems to have changed.
func (p *policies) reload() {
	if p.watcher != nil {
		p.watcher.Reload()
	}
}

func (p *policies) enforce(loaded *policy.Policy, warnings []policy.Problem) {
	p.engine.SetPolicy(loaded)
	p.health.PolicyLoaded(loaded.AnswersAlone())
	for _, w := range warnings {
		p.log.Warn("policy", "problem", w.String())
	}
	p.log.Info("policy in force",
		"version", loaded.Version(), "domains", len(loaded.Domains()), "rules", len(loaded.Rules()), "limits", len(loaded.Limits()))
}

// reject keeps the policy that is in force.
func (p *policies) reject(err error) {
	p.metrics.ReloadFailed()
	lines := []string{err.Error()}
	var all *policy.Errors
	if errors.As(err, &all) {
		lines = lines[:0]
		for _, problem := range all.Problems {
			lines = append(lines, problem.String())
		}
	}
	for _, line := range lines {
		p.log.Error("the new policy is not used, the one before stays in force", "problem", line)
	}
	p.health.PolicyFailed(time.Now(), lines)
	p.engine.TellPolicyRefused(lines)
}
