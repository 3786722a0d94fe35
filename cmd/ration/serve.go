package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/server/rls"
	"github.com/rationhq/ration/server/webhook"
)

// serveCmd is ration serve.
type serveCmd struct {
	serveFlags
}

// Run implements the command.
func (c *serveCmd) Run(to streams, env *environment, k *kong.Kong) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	return c.serve(to, env, k.Model, signals)
}

// serve puts the parts together, from the policy up to the listeners, and serves until a signal ends
// it.
func (c *serveCmd) serve(to streams, env *environment, app *kong.Application, signals <-chan os.Signal) error {
	log := c.newLog(to.err)
	if idle := env.idle(); len(idle) > 0 {
		log.Warn("these variables of envoyproxy/ratelimit have no effect here (docs/configuration.md)",
			"names", strings.Join(idle, " "))
	}
	if unknown := env.unknown(app); len(unknown) > 0 {
		log.Warn("these variables belong to no flag (ration serve --help)", "names", strings.Join(unknown, " "))
	}
	serverTLS, err := c.serverTLS(env, log)
	if err != nil {
		return err
	}
	callers, err := c.openAccess(env, log)
	if err != nil {
		return err
	}
	counters, err := c.openStore(env, log)
	if err != nil {
		return err
	}

	people, err := c.openSubjects(env)
	if err != nil {
		return err
	}

	metrics := engine.NewMetrics()
	e := engine.New(counters, engine.Options{
		Shadow: c.Shadow, Quota: c.Quota, Metrics: metrics, Log: log, StoreWait: c.storeWait(), Local: newLocal,
		Subjects: people.cache, QueuedReports: int(c.ReportQueue), QueuedBytes: int64(c.ReportQueueMemory),
	})
	hook, err := c.openWebhook(env, e, log)
	if err != nil {
		return err
	}
	h := &health.State{}
	rules := &policies{engine: e, metrics: metrics, health: h, log: log}
	if err := rules.load(c.Policy, c.options()); err != nil {
		return err
	}
	check := &storeCheck{store: counters, subjects: people, timeout: c.redisTimeout(), health: h, engine: e, log: log}
	check.ask(context.Background())

	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, people, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(thisBuild()))
	config := c.config(log)
	config.Flush = e.Flush
	config.TLS, config.HTTPTLS, config.AdminTLS = serverTLS, c.HTTPTLS, c.AdminTLS
	config.Directory, config.Policies = people, c.options()
	if callers != nil {
		config.Access = callers.known
		registry.MustRegister(callers.known)
	}
	if hook != nil {
		registry.MustRegister(hook)
	}
	s, err := server.New(config, e, h, registry)
	if err != nil {
		return err
	}
	log.Info("serving",
		"grpc", s.Addr("gRPC"), "http", s.Addr("HTTP"), "metrics", s.Addr("metrics"), "debug", s.Addr("debug"), "admin", s.Addr("admin"))
	if callers != nil {
		c.warnPlaintext(s, log)
	}
	if c.Banner || len(c.Policy) == 0 {
		p, _ := e.Policy()
		fmt.Fprint(to.err, c.banner(s, p))
	}
	if err := untilSignalled(s, rules, callers, check, hook, signals, log); err != nil {
		e.GiveUpReports()
		return err // the process ends, and does not wait for a store that may hang
	}
	e.Close()
	return errors.Join(people.close(), counters.Close())
}

// sameSignal is how soon after the first a second signal to end is taken for the same one.
const sameSignal = 500 * time.Millisecond

// untilSignalled serves until a signal ends it, while the policy and the store are watched.
func untilSignalled(
	s *server.Server, rules *policies, callers *accessFile, check *storeCheck, hook *webhook.Sender, signals <-chan os.Signal, log *slog.Logger,
) error {
	background, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { rules.watch(background) })
	watching.Go(func() { check.watch(background) })
	if callers != nil {
		watching.Go(func() { callers.watch(background) })
	}
	if hook != nil {
		watching.Go(func() { hook.Run(background) })
	}
	watching.Go(func() { collectRarely(background) })
	defer watching.Wait()
	defer stop()

	serving, drain := context.WithCancel(context.Background())
	defer drain()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(serving) }()
	var draining time.Time // since when; zero: not yet
	for {
		select {
		case err := <-ended:
			return err
		case got := <-signals:
			switch {
			case got == syscall.SIGHUP:
				log.Info("reading the policies, and who may call, again, as SIGHUP asks")
				rules.reload()
				if callers != nil {
					callers.reload()
				}
			case !draining.IsZero() && time.Since(draining) < sameSignal:
				// A supervisor that signals the process and its group sends everything twice.
			case !draining.IsZero():
				return errors.New("ended at once by a second signal: calls under way were cut off")
			default:
				draining = time.Now()
				drain()
			}
		}
	}
}

func (c *serveCmd) config(log *slog.Logger) server.Config {
	config := server.Config{
		GRPCAddr: string(c.GRPCAddr), HTTPAddr: string(c.HTTPAddr),
		MetricsAddr: string(c.MetricsAddr), DebugAddr: string(c.DebugAddr), AdminAddr: string(c.AdminAddr),
		MaxConnectionAge: orForever(c.MaxConnectionAge), MaxConnectionAgeGrace: orForever(c.MaxConnectionAgeGrace),
		Keepalive:  orForever(c.Keepalive),
		DrainDelay: time.Duration(c.DrainDelay),
		// To the server 0 means its default.
		StopTimeout: max(time.Duration(c.StopTimeout), 1),
		InsecureAPI: c.InsecureAPI,
		RLS:         rls.Options{Metadata: c.ResponseMetadata, Body: c.ResponseBody, RequestHeaders: c.RequestHeaders},
		Version:     thisBuild().proto(),
		Log:         log,
	}
	if c.ResponseHeaders {
		config.RLS.Headers = rls.Headers{
			Limit: string(c.ResponseHeaderLimit), Remaining: string(c.ResponseHeaderRemaining),
			Reset: string(c.ResponseHeaderReset),
		}
	}
	return config
}

// orForever reads 0 as forever, where the server reads it as its default.
func orForever(p period) time.Duration {
	if p == 0 {
		return math.MaxInt64
	}
	return time.Duration(p)
}

func buildInfo(b build) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ration_build_info", Help: "1 for the build that runs.",
		ConstLabels: prometheus.Labels{"version": b.version, "commit": b.commit, "go_version": b.goVersion},
	})
	g.Set(1)
	return g
}
