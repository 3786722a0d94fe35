package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/access"
	"github.com/rationhq/ration/server/admin"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/debug"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/gateway"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/server/recovery"
	"github.com/rationhq/ration/server/rls"
	"github.com/rationhq/ration/server/status"
	"github.com/rationhq/ration/server/usage"
	"github.com/rationhq/ration/subject"
)

// Config of a server.
type Config struct {
	// Where to listen: host:port, or unix:/path. Empty: not at all.
	GRPCAddr, HTTPAddr, MetricsAddr, DebugAddr string
	// AdminAddr is where AdminService listens, over gRPC and as JSON. It may be reached from this machine alone, unless
	// Access says who calls.
	AdminAddr string
	// Directory is what AdminService changes; nil: it is not served.
	Directory subject.Directory
	// Policies says how AdminService reads policies that it is to validate.
	Policies policy.Options
	// TLS of the gRPC listener; nil serves plaintext.
	TLS *tls.Config
	// HTTPTLS and AdminTLS say that those listeners speak it too.
	HTTPTLS, AdminTLS bool
	// MaxConnectionAge asks clients to reconnect, so that load spreads to new replicas; calls under
	// way have MaxConnectionAgeGrace to end. 0 means 24 h and 1 h.
	MaxConnectionAge, MaxConnectionAgeGrace time.Duration
	// Keepalive is how long a silent connection lives before it is probed; 0 means 2 h.
	Keepalive time.Duration
	// DrainDelay is how long calls are still answered after the health has said NOT_SERVING.
	DrainDelay time.Duration
	// StopTimeout bounds the wait for calls under way after that, and Flush; 0 means 10 s.
	StopTimeout time.Duration
	// Flush does what calls that were answered have left to do, when there are no more calls; nil: nothing is left.
	Flush func(context.Context)
	// Access are those who may call ration.v1, on every listener; nil: InsecureAPI says who may.
	Access *access.Callers
	// InsecureAPI lets everybody call AccountingService and UsageService who reaches a listener; else only callers on the same
	// machine may, on listeners that nobody else reaches.
	InsecureAPI bool
	// RLS says how Envoy's service answers.
	RLS rls.Options
	// Version is what the status service reports.
	Version *rationv1.GetVersionResponse
	// Log takes what an operator should know; nil discards it.
	Log *slog.Logger
}

// Server is a server whose listeners are open.
type Server struct {
	config Config
	engine *engine.Engine
	health *health.State
	grpc   *grpc.Server
	admin  *grpc.Server // nil: AdminService is not served
	serve  []func() error
	web    []*http.Server
	addrs  map[string]string
	gates  map[string]*access.Gate
	// stopping is closed when no call is waited for any more that only its client would end.
	stopping chan struct{}
}

// New opens all listeners, or none: an error names the address that cannot be had.
func New(config Config, e *engine.Engine, h *health.State, metrics *prometheus.Registry) (_ *Server, err error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.StopTimeout <= 0 {
		config.StopTimeout = 10 * time.Second
	}
	s := &Server{config: config, engine: e, health: h, addrs: make(map[string]string), gates: make(map[string]*access.Gate), stopping: make(chan struct{})}
	var opened []net.Listener
	defer func() {
		if err != nil {
			for _, l := range opened {
				_ = l.Close()
			}
			s.kill()
		}
	}()
	listen := func(name, addr string) (net.Listener, error) {
		l, err := open(addr)
		if err != nil {
			return nil, fmt.Errorf("listen for %s on %s: %w", name, addr, err)
		}
		opened = append(opened, l)
		s.addrs[name] = l.Addr().String()
		return l, nil
	}

	guard := recovery.New(config.Log)
	config.RLS.Guard = guard
	service := rls.New(e, config.RLS)
	metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "ration_panics_total", Help: "Calls that ended in a panic, which was caught.",
	}, func() float64 { return float64(guard.Caught()) }))
	var grpcListener net.Listener
	if config.GRPCAddr != "" {
		if grpcListener, err = listen("gRPC", config.GRPCAddr); err != nil {
			return nil, err
		}
		s.gates["gRPC"] = gateOn(grpcListener.Addr(), "--grpc-addr", &config)
	}
	own := func(to grpc.ServiceRegistrar) {
		rationv1.RegisterStatusServiceServer(to, status.New(config.Version, e, h))
		rationv1.RegisterAccountingServiceServer(to, api.New(e, guard))
		rationv1.RegisterUsageServiceServer(to, usage.New(e))
	}
	s.grpc = newGRPC(config, h, service, guard, s.gates["gRPC"], s.stopping)
	own(s.grpc)
	if grpcListener != nil {
		s.serve = append(s.serve, func() error { return s.grpc.Serve(grpcListener) })
	}
	if config.Directory == nil {
		config.AdminAddr = ""
	}
	for _, site := range []struct {
		name, addr string
		handler    func(net.Addr) (http.Handler, error)
		write      time.Duration // how long an answer may take that comes soon; 0: as long as it takes
		tls        bool
		protocols  *http.Protocols
	}{
		{"HTTP", config.HTTPAddr, func(at net.Addr) (http.Handler, error) {
			s.gates["HTTP"] = gateOn(at, "--http-addr", &config)
			g := gateway.New(gateway.Options{
				Unary: s.gates["HTTP"].Unary, Waits: api.Waits, Guard: guard, Stream: chain(s.gates["HTTP"].Stream, endStreams(s.stopping, guard)),
			})
			own(g)
			json := http.Handler(g)
			if config.Access == nil && !config.InsecureAPI && isLocal(at) {
				json = notByName(g)
			}
			return public(service, json, g.Prefixes(), h), nil
		}, 30 * time.Second, config.HTTPTLS, nil},
		{"metrics", config.MetricsAddr, func(net.Addr) (http.Handler, error) { return metricsHandler(metrics), nil }, 30 * time.Second, false, nil},
		{"debug", config.DebugAddr, func(net.Addr) (http.Handler, error) { return debug.New(e), nil }, 0, false, nil}, // a profile takes its time
		{"admin", config.AdminAddr, func(at net.Addr) (http.Handler, error) {
			if err := mayAdminister(at, config.Access); err != nil {
				return nil, err
			}
			gate := &access.Gate{Callers: config.Access}
			service := admin.New(e, config.Directory, config.Policies)
			s.admin = newAdminGRPC(service, guard, gate, s.stopping)
			return adminHandler(s.admin, service, guard, gate), nil
		}, 30 * time.Second, config.AdminTLS, gRPCToo(config.AdminTLS)},
	} {
		if site.addr == "" {
			continue
		}
		l, err := listen(site.name, site.addr)
		if err != nil {
			return nil, err
		}
		handler, err := site.handler(l.Addr())
		if err != nil {
			return nil, err
		}
		web := &http.Server{
			Handler: handler, Protocols: site.protocols, ReadTimeout: readTimeout, WriteTimeout: site.write, IdleTimeout: 2 * time.Minute,
			ErrorLog: slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug),
		}
		s.web = append(s.web, web)
		if site.tls && config.TLS != nil {
			web.TLSConfig = forWeb(config.TLS)
			web.Handler = untilExpired(handler)
			s.serve = append(s.serve, func() error { return web.ServeTLS(l, "", "") })
			continue
		}
		s.serve = append(s.serve, func() error { return web.Serve(l) })
	}
	return s, nil
}

// readTimeout bounds how long a caller may take to say what it wants over HTTP.
const readTimeout = 10 * time.Second

// Addr returns where the server listens for "gRPC", "HTTP", "metrics", "debug" or "admin"; empty if it does
// not.
func (s *Server) Addr(name string) string { return s.addrs[name] }

// Restricted reports whether AccountingService and UsageService are served at that address, but answer nobody.
func (s *Server) Restricted(name string) bool {
	g, listens := s.gates[name]
	return listens && g.Callers == nil && g.Closed
}

func open(addr string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix {
		return net.Listen("tcp", addr)
	}
	// A socket file that nobody answers on was left by a process that did not end by itself.
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "unix", path); err == nil {
			_ = conn.Close()
			return nil, errors.New("another process answers there")
		}
		_ = os.Remove(path)
	}
	return net.Listen("unix", path)
}

func newGRPC(
	config Config, h *health.State, service *rls.Service, guard *recovery.Guard, gate *access.Gate, stopping <-chan struct{},
) *grpc.Server {
	// One request of grpc-go is a goroutine with a small stack that has to grow; workers keep theirs.
	workers := uint32(8 * runtime.GOMAXPROCS(0))
	// Larger messages than rls reads are received as far as here, so that their sender gets an answer
	// that says what is wrong. What one connection can make the server hold is bounded by both.
	const receive, streams = 12 << 20, 256
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(rls.NewCodec()),
		grpc.NumStreamWorkers(workers),
		grpc.MaxRecvMsgSize(receive),
		grpc.MaxConcurrentStreams(streams),
		// Envoy's service runs none of these.
		grpc.ChainUnaryInterceptor(failure.Unary, guard.Unary, gate.Unary),
		grpc.ChainStreamInterceptor(failure.Stream, gate.Stream, endStreams(stopping, guard)),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      orElse(config.MaxConnectionAge, 24*time.Hour),
			MaxConnectionAgeGrace: orElse(config.MaxConnectionAgeGrace, time.Hour),
			Time:                  orElse(config.Keepalive, 2*time.Hour),
		}),
		// Envoy's keepalive pings are welcome, also on idle connections.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
	if config.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config.TLS)))
	}
	server := grpc.NewServer(options...)
	service.Register(server)
	registerHealth(server, h)
	reflection.Register(server)
	return server
}

func orElse(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// ServiceStore is the name under which the health says whether decisions are made by the store.
const ServiceStore = "ration.store"

// registerHealth serves grpc.health.v1. The server as a whole ("") is alive until it stops; the
// services are fit while it can answer; the store is, while decisions are made by it.
func registerHealth(server *grpc.Server, h *health.State) {
	checks := grpchealth.NewServer()
	healthv1.RegisterHealthServer(server, checks)
	status := map[bool]healthv1.HealthCheckResponse_ServingStatus{
		true: healthv1.HealthCheckResponse_SERVING, false: healthv1.HealthCheckResponse_NOT_SERVING,
	}
	h.OnChange(func(f health.Fitness) {
		checks.SetServingStatus("ratelimit", status[f.Serving])
		checks.SetServingStatus(ratelimitv3.RateLimitService_ServiceDesc.ServiceName, status[f.Serving])
		checks.SetServingStatus(ServiceStore, status[f.Exact])
	})
}

// public serves the HTTP address.
func public(service *rls.Service, own http.Handler, prefixes []string, h *health.State) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/json", service)
	for _, prefix := range prefixes {
		mux.Handle(prefix, own)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/ration.v1.") {
			own.ServeHTTP(w, r) // says that there is no such method
			return
		}
		http.NotFound(w, r)
	})
	mux.HandleFunc("/healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		if !h.Serving() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "OK")
	})
	return mux
}

func metricsHandler(metrics *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

// Serve answers until ctx ends, then takes the server down without losing a call: the health says
// NOT_SERVING, calls are answered for the drain delay while clients turn away, then connections are
// closed as their calls end. It returns nil if everything ended in time.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, len(s.serve))
	for _, serve := range s.serve {
		go func() { failed <- serve() }()
	}
	select {
	case err := <-failed:
		s.kill()
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.health.Drain()
	s.config.Log.Info("draining", "delay", s.config.DrainDelay)
	time.Sleep(s.config.DrainDelay)
	return s.stop()
}

func (s *Server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.StopTimeout)
	defer cancel()
	s.engine.StopWaiting()
	close(s.stopping)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	var late error
	select {
	case <-done:
	case <-ctx.Done():
		late = fmt.Errorf("calls were still under way after %v: ended", s.config.StopTimeout)
		s.grpc.Stop()
		<-done
	}
	for _, web := range s.web {
		if err := web.Shutdown(ctx); err != nil {
			_ = web.Close()
		}
	}
	if s.admin != nil {
		s.admin.Stop()
	}
	if s.config.Flush != nil {
		s.config.Flush(ctx)
	}
	return late
}

func (s *Server) kill() {
	if s.grpc != nil {
		s.grpc.Stop()
	}
	for _, web := range s.web {
		_ = web.Close()
	}
	if s.admin != nil {
		s.admin.Stop()
	}
}
