package server_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

const accounts = `
domain: llm
tiers:
  - { name: free, attributes: { max_output: 800, route: [ slow, cheap ] } }
  - { name: pro }
trust_tier: true
prices:
  book: none
  models:
    small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.25" }
descriptors:
  - key: user
    subject: true
    rate_limit: { unit: hour, requests_per_unit: 100 }
    limits:
      - { name: requests, meter: requests, algorithm: fixed_window, tiers: { free: { limit: 5/minute }, pro: { limit: 50/minute } } }
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/day, per_request: 900 }
      - { name: budget, meter: cost, algorithm: calendar, limit: $1/month }
      - { name: at-once, meter: concurrency, limit: 3 }
  - key: banned
    limits: [ { name: none, meter: requests, algorithm: fixed_window, limit: 0/minute } ]
  - { key: plain, rate_limit: { unit: minute, requests_per_unit: 1 } }
  - { key: closed, rate_limit: { unit: minute, requests_per_unit: 0 } }
  - { key: paid, limits: [ { name: tokens, meter: tokens, algorithm: calendar, limit: 10/day } ] }
  - key: cut
    limits: [ { name: short, meter: output_tokens, algorithm: fixed_window, limit: 1_000/day, per_request: 50, clamp: true } ]
upstreams:
  - name: key
    models: [ shared ]
    limits: [ { name: requests, algorithm: token_bucket, rate: 60/minute } ]
`

// noon is 2026-11-23 12:00:00 UTC.
const noon = limit.Micros(1_795_435_200_000_000)

// clock is what the stores of these tests go by.
type clock struct {
	mu  sync.Mutex
	now limit.Micros
}

func (c *clock) Now() limit.Micros {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(by limit.Micros) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += by
}

// site is a server that serves both ways.
type site struct {
	*server.Server
	rationv1.AccountingServiceClient
	conn  *grpc.ClientConn
	clock *clock
	end   func() error // stops it, and says how that went
}

// serve serves a policy over counters in memory, or over another store.
func serve(t *testing.T, text string, over store.Store, config server.Config) *site {
	t.Helper()
	s := &site{clock: &clock{now: noon}}
	if over == nil {
		over = memory.New(memory.Options{Clock: s.clock.Now})
	}
	e := engine.New(over, engine.Options{})
	if text != "" {
		p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(text)}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.SetPolicy(p)
	}
	for _, addr := range []*string{&config.GRPCAddr, &config.HTTPAddr} {
		if *addr == "" {
			*addr = "127.0.0.1:0"
		}
	}
	var err error
	if s.Server, err = server.New(config, e, &health.State{}, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	s.end = sync.OnceValue(func() error { stop(); return <-ended })
	if s.conn, err = grpc.NewClient(s.Addr("gRPC"), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	s.AccountingServiceClient = rationv1.NewAccountingServiceClient(s.conn)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = s.conn.Close()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		e.Close()
		_ = over.Close()
	})
	return s
}

// reply is an answer over HTTP.
type reply struct {
	status int
	header http.Header
	text   string
}

// post calls a method over HTTP as a caller does who writes JSON by hand.
func post(t *testing.T, addr, method, body string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header, string(text)}
}

const accounting = "ration.v1.AccountingService/"

func alice(more ...func(*rationv1.Caller)) *rationv1.Caller {
	c := &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}, Model: "small"}
	for _, change := range more {
		change(c)
	}
	return c
}

// as is a caller who is known by another attribute, and by no user.
func as(key string) *rationv1.Caller {
	return &rationv1.Caller{Domain: "llm", Attributes: map[string]string{key: "x"}}
}

func tokens(input, output int64) *rationv1.Usage {
	return &rationv1.Usage{InputTokens: input, OutputTokens: output}
}

func estimate(input, output int64) *rationv1.Estimate {
	return &rationv1.Estimate{Of: &rationv1.Estimate_Usage{Usage: tokens(input, output)}}
}

// expectJSON compares a message with the JSON of one.
func expectJSON(t *testing.T, what string, got proto.Message, want string) {
	t.Helper()
	wanted := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(want), wanted); err != nil {
		t.Fatalf("%s: what is wanted cannot be read: %v", what, err)
	}
	if proto.Equal(got, wanted) {
		return
	}
	t.Errorf("%s:\n%s\nwant\n%s", what, protojson.Format(got), protojson.Format(wanted))
}

// All that Reserve and Settle say, field by field.
func TestReserveAndSettle(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	reserved, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{
		Caller: alice(), Estimate: estimate(100, 200), IdempotencyKey: "call-1", Lease: durationpb.New(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	id := reserved.GetReservation().GetId()
	reserved.GetReservation().Id = "…"
	if len(reserved.GetDecision().GetPolicyVersion()) < 8 || len(reserved.GetDecision().GetPrice().GetBook()) < 8 {
		t.Errorf("versions: %q of the policy, %q of the prices", reserved.GetDecision().GetPolicyVersion(), reserved.GetDecision().GetPrice().GetBook())
	}
	reserved.GetDecision().PolicyVersion, reserved.GetDecision().GetPrice().Book = "…", "…"
	reserved.GetDecision().GetHttp().Headers = nil // package headers tests them
	expectJSON(t, "reserved", reserved, `{
  "decision": {
    "verdict": "VERDICT_ADMITTED",
    "limits": [
      {"limit": "llm.user.at-once", "name": "at-once", "meter": "METER_CONCURRENCY",
        "quantity": "3 requests at the same time", "capacity": "3", "held": "1", "remaining": "2", "amount": "1"},
      {"limit": "llm.user.tokens", "name": "tokens", "meter": "METER_TOKENS", "quantity": "1,000 tokens per day",
        "capacity": "1000", "held": "300", "remaining": "700", "amount": "300", "resetsAt": "2026-11-24T00:00:00Z"},
      {"limit": "llm.user.requests", "name": "requests", "meter": "METER_REQUESTS",
        "quantity": "5 requests per minute", "capacity": "5", "held": "1", "remaining": "4", "amount": "1",
        "resetsAt": "2026-11-23T12:01:00Z"},
      {"limit": "llm.user", "meter": "METER_REQUESTS", "quantity": "100 requests per hour", "capacity": "100",
        "used": "1", "remaining": "99", "amount": "1", "resetsAt": "2026-11-23T13:00:00Z"},
      {"limit": "llm.user.budget", "name": "budget", "meter": "METER_COST", "quantity": "$1.00 per month",
        "capacity": "1000000000", "held": "500000", "remaining": "999500000", "amount": "500000",
        "resetsAt": "2026-12-01T00:00:00Z"}
    ],
    "maxOutputTokens": "800",
    "tier": "free",
    "tierAttributes": {"max_output": 800, "route": ["slow", "cheap"]},
    "http": {"status": 200},
    "policyVersion": "…",
    "price": {"entry": "small", "input": "1000000000", "cacheRead": "500000000", "cacheWrite": "1250000000",
      "output": "2000000000", "book": "…"},
    "estimatedCost": "500000",
    "estimate": {"inputTokens": "100", "outputTokens": "200"},
    "decidedAt": "2026-11-23T12:00:00Z"
  },
  "reservation": {"id": "…", "expiresAt": "2026-11-23T12:01:00Z"}
}`)

	s.clock.Advance(10 * limit.Second)
	settled, err := s.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: id, Usage: &rationv1.Usage{
		InputTokens: 80, CacheReadTokens: 20, CacheWriteTokens: 40, OutputTokens: 50,
	}})
	if err != nil {
		t.Fatal(err)
	}
	settled.GetPrice().Book = "…"
	expectJSON(t, "settled", settled, `{
  "state": "STATE_SETTLED",
  "cost": "240000",
  "charges": [
    {"limit": "llm.user.requests", "meter": "METER_REQUESTS", "held": "1", "charged": "1"},
    {"limit": "llm.user.tokens", "meter": "METER_TOKENS", "held": "300", "charged": "190"},
    {"limit": "llm.user.budget", "meter": "METER_COST", "held": "500000", "charged": "240000"}
  ],
  "limits": [
    {"limit": "llm.user.requests", "name": "requests", "meter": "METER_REQUESTS",
      "quantity": "5 requests per minute", "capacity": "5", "used": "1", "remaining": "4", "amount": "1",
      "resetsAt": "2026-11-23T12:01:00Z"},
    {"limit": "llm.user.tokens", "name": "tokens", "meter": "METER_TOKENS", "quantity": "1,000 tokens per day",
      "capacity": "1000", "used": "190", "remaining": "810", "amount": "190", "resetsAt": "2026-11-24T00:00:00Z"},
    {"limit": "llm.user.budget", "name": "budget", "meter": "METER_COST", "quantity": "$1.00 per month",
      "capacity": "1000000000", "used": "240000", "remaining": "999760000", "amount": "240000",
      "resetsAt": "2026-12-01T00:00:00Z"}
  ],
  "price": {"entry": "small", "input": "1000000000", "cacheRead": "500000000", "cacheWrite": "1250000000",
    "output": "2000000000", "book": "…"}
}`)
}
