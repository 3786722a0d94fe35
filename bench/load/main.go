// Command load asks a rate limit service for decisions at a known pace and reports throughput, latency and CPU time
// per decision. What it does, and how far its figures can be trusted, is told in ../README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/bench/internal/cputime"
	"github.com/rationhq/ration/bench/internal/loadgen"
)

type options struct {
	Address string `arg:"" help:"Where the rate limit service listens, host:port. Plain HTTP/2, no TLS."`

	Callers     int           `group:"Pace" xor:"pace" help:"Closed loop: this many callers, each of which asks again when it has its answer." placeholder:"N"`
	Rate        float64       `group:"Pace" xor:"pace" help:"Open loop: this many requests per second on a fixed schedule. Latency counts from when a request was due, not from when it could be sent." placeholder:"N"`
	MaxInFlight int           `group:"Pace" default:"512" help:"Open loop: at most this many requests at a time; more wait, and their latency grows."`
	Tick        time.Duration `group:"Pace" default:"250µs" help:"Open loop: requests are due on this grid, so that one wake-up sends those of a tick. 0 spaces them evenly and costs more CPU."`
	Warmup      time.Duration `group:"Pace" default:"1s" help:"Run the same load this long before measuring. Unless 0, every key is also asked for once before."`
	Duration    time.Duration `group:"Pace" default:"5s" help:"Measure this long."`
	Requests    uint64        `group:"Pace" help:"Stop after this many measured requests, if sooner. 0 is no bound."`
	Timeout     time.Duration `group:"Pace" default:"5s" help:"Deadline of each call. A call that misses it is an error."`
	Connections int           `group:"Pace" default:"2" help:"HTTP/2 connections that all callers share."`

	Domain      string   `group:"Requests" default:"bench" help:"Domain of the requests."`
	Descriptors int      `group:"Requests" default:"1" help:"Descriptors per request, 1 to 3, of those in bench/policy/plain/policy.yaml."`
	Descriptor  []string `group:"Requests" sep:"none" help:"Use this descriptor instead; repeat for more. key=value or key=value,key=value, where {key} stands for the key of the request, as in user={key}, {key%N} for its number modulo N, and {id} for a text that no other request has; hits=N behind it, after a space, sets its hits." placeholder:"KEY=VALUE"`
	Then        []string `group:"Requests" sep:"none" help:"Closed loop: when a request was answered with OK, ask this about the same key and the same {id}; repeat for more descriptors. Each call counts as a decision." placeholder:"KEY=VALUE"`
	Keys        int      `group:"Requests" default:"10000" help:"Number of different keys. Requests spread over them evenly."`
	HotKeys     int      `group:"Requests" help:"Number of hot keys among them. --hot-keys 1 alone asks for a single key only."`
	HotShare    float64  `group:"Requests" default:"1" help:"Share of the requests that goes to the hot keys, 0 to 1."`
	Seed        uint64   `group:"Requests" default:"1" help:"Seed of the choice of keys."`

	PID      int    `group:"Measuring CPU" name:"pid" help:"Process id of the server, to meter its CPU time." placeholder:"PID"`
	Redis    string `group:"Measuring CPU" xor:"redis" help:"Address or redis:// URL of the server's Redis, to meter its CPU time by INFO." placeholder:"ADDRESS"`
	RedisPID int    `group:"Measuring CPU" xor:"redis" name:"redis-pid" help:"Process id of Redis, to meter its CPU time by /proc instead." placeholder:"PID"`

	Format string `enum:"text,json" default:"text" help:"Output: text or json."`
}

const description = `Asks a rate limit service (envoy.service.ratelimit.v3.RateLimitService) for decisions and reports
throughput, latency and CPU time per decision. Either --callers or --rate says how. It stops by itself; interrupting it reports what was measured so far.
The exit code is 1 if any call failed.

Examples:

  load 127.0.0.1:8081 --callers 16

  load 127.0.0.1:8081 --callers 128 --descriptors 3 --pid "$(pidof ration)" --redis 127.0.0.1:6379

  load 127.0.0.1:8081 --rate 5000 --duration 30s --domain shop --descriptor 'user={key},path=/buy'

  load 127.0.0.1:8081 --callers 16 --domain limits --descriptor 'concurrency_3={key},ration.request={id}' \
    --then 'concurrency_3={key},ration.phase=done,ration.request={id}'`

func main() {
	var opts options
	kong.Parse(&opts, kong.Name("load"), kong.Description(description))
	// The generator shares the machine: collect garbage less often than a server should.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := run(ctx, opts)
	if err == nil {
		err = write(os.Stdout, report, opts.Format)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	if report.Errors+report.WarmupErrors > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, opts options) (*loadgen.Report, error) {
	plan, err := opts.plan()
	if err != nil {
		return nil, err
	}
	meters, err := opts.meters()
	if err != nil {
		return nil, err
	}
	client, err := loadgen.Connect(ctx, opts.Address, opts.Connections, opts.Timeout)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if plan.Warmup > 0 {
		if err := client.Prime(ctx, plan.Mix); err != nil {
			return nil, err
		}
	}
	return client.Run(ctx, plan, meters)
}

func (o options) plan() (loadgen.Plan, error) {
	plan := loadgen.Plan{
		Mix: loadgen.Mix{
			Domain: o.Domain, Descriptors: o.Descriptor, Then: o.Then, Keys: o.Keys, HotKeys: o.HotKeys, HotShare: o.HotShare,
		},
		Callers: o.Callers, Rate: o.Rate, MaxInFlight: o.MaxInFlight, Tick: o.Tick,
		Warmup: o.Warmup, Duration: o.Duration, MaxRequests: o.Requests, Seed: o.Seed,
	}
	if o.HotKeys == 0 {
		plan.HotShare = 0
	}
	if len(plan.Descriptors) == 0 {
		var err error
		if plan.Descriptors, err = loadgen.DefaultDescriptors(o.Descriptors); err != nil {
			return loadgen.Plan{}, err
		}
	}
	return plan, nil
}

func (o options) meters() (loadgen.Meters, error) {
	var meters loadgen.Meters
	if o.PID != 0 {
		meters.Server = cputime.Process(o.PID)
	}
	if o.RedisPID != 0 {
		meters.Redis = cputime.Process(o.RedisPID)
	}
	if o.Redis != "" {
		// ParseURL would take the host of a bare host:port for a scheme.
		redisOptions := &redis.Options{Addr: o.Redis}
		if strings.Contains(o.Redis, "://") {
			var err error
			if redisOptions, err = redis.ParseURL(o.Redis); err != nil {
				return loadgen.Meters{}, fmt.Errorf("--redis: %w", err)
			}
		}
		meters.Redis = cputime.Redis(redis.NewClient(redisOptions))
	}
	return meters, nil
}

func write(w io.Writer, report *loadgen.Report, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.WriteText(w)
}
