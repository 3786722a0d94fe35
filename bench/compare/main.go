// Command compare measures rate limit services side by side. It starts each contestant on free ports of this machine,
// with a Redis of its own where one is needed, makes sure that it enforces the benchmark's policy, puts the same load
// on all of them in turn, and writes tables with their cost relative to the floor: a bare gRPC server that does
// nothing. It knows no implementation but by how it is started; ration is a contestant like any other.
//
// Read ../README.md first, then rounds.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/rationhq/ration/bench/internal/floor"
)

const description = `Measures rate limit services side by side, and writes Markdown tables of throughput, latency and CPU time
per decision, as figures and relative to the floor: a bare gRPC server that answers OK at once; and the memory of many subjects.

Built-in contestants: floor, ration-memory, ration-redis, ration-rules. Scenarios, by suite:

plain: closed-{1,16,128}x{1,3} (callers x descriptors), hot-16x1, open-half-own, open-half-floor

limits: ALGORITHM-{16,128}x{1,3,6} (callers x limits), reserve-{16,128}x6

accounts: account-{16,128}x{1,3}, account-rows-{16,128}x{1,3} (callers x limits)

lanes: lane-{reserve,acquire}-{1,64} (callers)

rules: rules-{16,128}x{10,10000} (callers x rules)

All are explained in bench/README.md.

Examples:

  compare --out bench/results.md

  compare --quick ration-memory

  compare --suite limits --suite memory

  compare --scenario 'token_bucket-*' --scenario 'reserve-*'

  compare --bin ratelimit=/usr/local/bin/ratelimit --contestants bench/contestants/ratelimit.yaml --against ratelimit-best

  compare --contestant '{name: mine, command: [/usr/local/bin/mine, --listen, "{grpc}", --redis, "{redis_url}"]}' mine`

type options struct {
	Names []string `arg:"" optional:"" name:"contestant" help:"Contestants to compare with the floor. Default: all there are."`

	Bin         map[string]string `group:"Contestants" mapsep:"none" help:"Path of the binary that {bin:NAME} stands for in the command of a contestant; repeat for more. {bin:ration} is bin/ration by itself, where make build puts it." placeholder:"NAME=PATH"`
	Contestants []string          `group:"Contestants" type:"existingfile" sep:"none" help:"YAML file with further contestants; repeat for more." placeholder:"FILE"`
	Contestant  []string          `group:"Contestants" sep:"none" help:"A further contestant, written as one YAML flow mapping; repeat for more." placeholder:"YAML"`
	Policy      string            `group:"Contestants" default:"bench/policy/plain/policy.yaml" help:"The policy of the plain suite, in the format of envoyproxy/ratelimit."`
	Limits      string            `group:"Contestants" name:"limits-policy" default:"bench/policy/limits/policy.yaml" help:"The policy of the suites limits and memory."`
	Accounts    string            `group:"Contestants" name:"accounts-policy" default:"bench/policy/accounts" help:"The directory with the policies of the suite accounts."`
	Lanes       string            `group:"Contestants" name:"lanes-policy" default:"bench/policy/lanes/policy.yaml" help:"The policy of the suite lanes."`
	RedisServer string            `group:"Contestants" default:"redis-server" help:"Program to start a contestant's Redis with."`

	Quick       bool          `group:"Load" help:"A subset of the scenarios in two minutes or so, and a tenth of the subjects."`
	Suite       []suite       `group:"Load" sep:"none" help:"Run this suite only: plain, limits, accounts, lanes, rules or memory; repeat for more." placeholder:"NAME"`
	Scenario    []string      `group:"Load" sep:"none" help:"Run this scenario only, or those that match a pattern with *; repeat for more." placeholder:"NAME"`
	Rounds      int           `group:"Load" help:"How often everything is repeated. Default: 3, quick 2."`
	Warmup      time.Duration `group:"Load" help:"Unmeasured load before each measurement. Default: 400ms, quick 250ms; half of it in the suites limits, accounts, lanes and rules."`
	Duration    time.Duration `group:"Load" help:"Length of each measurement. Default: 2s, quick 1.5s; half of it in the suites limits, accounts, lanes and rules."`
	Keys        int           `group:"Load" default:"10000" help:"Number of different keys."`
	Subjects    int           `group:"Load" help:"Number of subjects in the suite memory. Default: 1000000, quick 100000." placeholder:"N"`
	Connections int           `group:"Load" default:"2" help:"HTTP/2 connections that all callers share."`

	Against []string `group:"Output" sep:"none" help:"Give ratios to this contestant too, besides those to the floor; repeat for more." placeholder:"NAME"`
	Out     string   `group:"Output" help:"Write the tables to this file instead of standard output." placeholder:"FILE"`
	JSON    string   `group:"Output" name:"json" help:"Write every single measurement to this file." placeholder:"FILE"`

	ServeFloor string `hidden:"" help:"Serve the floor on this address instead: how compare starts it."`
}

func main() {
	var opts options
	kong.Parse(&opts, kong.Name("compare"), kong.Description(description))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := opts.compare
	if opts.ServeFloor != "" {
		do = opts.serveFloor
	}
	if err := do(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// The floor is served by this same program, so that comparing needs nothing built beside it.
func (o options) serveFloor(ctx context.Context) error {
	listener, err := net.Listen("tcp", o.ServeFloor)
	if err != nil {
		return err
	}
	return floor.Serve(ctx, listener)
}

func (o options) pace() pace {
	chosen := pace{Rounds: 3, Warmup: 400 * time.Millisecond, Duration: 2 * time.Second, Subjects: 1_000_000, Waiters: 1000}
	if o.Quick {
		chosen = pace{Rounds: 2, Warmup: 250 * time.Millisecond, Duration: 1500 * time.Millisecond, Subjects: 100_000, Waiters: 200}
	}
	chosen.Keys = o.Keys
	if o.Subjects > 0 {
		chosen.Subjects = o.Subjects
	}
	if o.Rounds > 0 {
		chosen.Rounds = o.Rounds
	}
	if o.Warmup > 0 {
		chosen.Warmup = o.Warmup
	}
	if o.Duration > 0 {
		chosen.Duration = o.Duration
	}
	return chosen
}

func (o options) compare(ctx context.Context) (err error) {
	contestants, err := gather(o.Contestants, o.Contestant, o.Names)
	if err != nil {
		return err
	}
	choice := choice{names: o.Scenario, suites: o.Suite, quick: o.Quick}
	scenarios, err := choice.scenarios()
	if err != nil {
		return err
	}
	against, err := o.bases(contestants)
	if err != nil {
		return err
	}
	policy, err := existing("--policy", o.Policy)
	if err != nil {
		return err
	}
	limitsPolicy, err := existing("--limits-policy", o.Limits)
	if err != nil {
		return err
	}
	accountsPolicy, err := existing("--accounts-policy", o.Accounts)
	if err != nil {
		return err
	}
	lanesPolicy, err := existing("--lanes-policy", o.Lanes)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rulesPolicy, err := writeRules(dir)
	if err != nil {
		return err
	}

	// The generator shares the machine: collect garbage less often than a server should.
	debug.SetGCPercent(400)
	redisServer := ""
	if slices.ContainsFunc(contestants, contestant.needsRedis) {
		redisServer = o.RedisServer
	}
	binaries := map[string]string{"ration": "bin/ration"}
	maps.Copy(binaries, o.Bin)
	comparison := comparison{
		launcher: launcher{
			binaries: binaries, policy: policy, limitsPolicy: limitsPolicy, accountsPolicy: accountsPolicy, lanesPolicy: lanesPolicy,
			rulesPolicy: rulesPolicy,
			redisServer: o.RedisServer, dir: dir, connections: o.Connections,
		},
		contestants: contestants, scenarios: scenarios, pace: o.pace(), progress: os.Stderr,
	}
	if !choice.memory() {
		comparison.pace.Subjects = 0
	}
	if !choice.lanes() {
		comparison.pace.Waiters = 0
	}
	fmt.Fprintf(os.Stderr, "%d contestants, %d scenarios, %d rounds: about %v\n", len(contestants), len(scenarios),
		comparison.pace.Rounds, comparison.pace.estimate(scenarios, contestants).Round(time.Second))
	machine := lookAround(redisServer)
	if err := comparison.play(ctx); err != nil {
		return err
	}
	if o.JSON != "" {
		err := writeFile(o.JSON, func(w io.Writer) error {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(map[string]any{
				"machine": machine, "contestants": contestants, "scenarios": scenarios,
				"starts": comparison.starts, "runs": comparison.runs, "footprints": comparison.footprints,
				"wakings": comparison.wakings, "crowds": comparison.crowds,
			})
		})
		if err != nil {
			return err
		}
	}
	document := document{
		machine: machine, contestants: contestants, scenarios: scenarios, pace: comparison.pace,
		results: comparison.runs, starts: comparison.starts, footprints: comparison.footprints,
		wakings: comparison.wakings, crowds: comparison.crowds, against: against,
	}
	if o.Out == "" {
		return document.write(os.Stdout)
	}
	return writeFile(o.Out, document.write)
}

// existing returns the absolute path of a file or directory that a flag names, which must be there.
func existing(flag, path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(absolute)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return absolute, nil
}

// writeRules writes the policies of few and of many rules below dir.
func writeRules(dir string) (string, error) {
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o700); err != nil {
		return "", err
	}
	for _, count := range []int{fewRules, manyRules} {
		file := filepath.Join(policies, rulesDomain(count)+".yaml")
		if err := os.WriteFile(file, []byte(rulesPolicy(count)), 0o600); err != nil {
			return "", err
		}
	}
	return policies, nil
}

// bases returns whom the others are set in relation to: the floor, and whoever was asked for.
func (o options) bases(contestants []contestant) ([]string, error) {
	bases := []string{floorName}
	for _, name := range o.Against {
		if !slices.ContainsFunc(contestants, func(c contestant) bool { return c.Name == name }) {
			return nil, fmt.Errorf("--against %s: not among the contestants", name)
		}
		if !slices.Contains(bases, name) {
			bases = append(bases, name)
		}
	}
	return bases, nil
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
