package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/access"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/subject"
	subjects "github.com/rationhq/ration/subject/memory"
)

// gated is a server that asks for tokens, on addresses that others reach too.
type gated struct {
	*server.Server
	tokens  *access.Callers
	metrics *prometheus.Registry
	log     *lockedBuffer
	// token are those that were made, by their names; entries is how they stand in the file.
	token   map[string]string
	entries string
}

// gatedBy serves two domains to callers with tokens, each NAME: and what stands in the file beside its name and hash.
func gatedBy(t *testing.T, now func() time.Time, entries map[string]string) *gated {
	t.Helper()
	g := &gated{tokens: access.NewCallers(now), metrics: prometheus.NewRegistry(), log: &lockedBuffer{}, token: map[string]string{}}
	for name, rest := range entries {
		token, hash := access.NewToken()
		g.token[name] = token
		g.entries += fmt.Sprintf("  - { name: %s, sha256: %s, %s }\n", name, hash, rest)
	}
	g.set(t, "tokens:\n"+g.entries)
	g.metrics.MustRegister(g.tokens)
	directory := subjects.New(subjects.Options{})
	t.Cleanup(func() { _ = directory.Close() })
	cache := subject.NewCache(directory, subject.CacheOptions{})
	t.Cleanup(cache.Close)
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	counters := memory.New(memory.Options{})
	t.Cleanup(func() { _ = counters.Close() })
	e := engine.New(counters, engine.Options{Subjects: cache, Log: log})
	t.Cleanup(e.Close)
	p, _, err := policy.Parse([]policy.Source{
		{Name: "p.yaml", Data: []byte(strings.Replace(people, "anonymous: deny\n", "", 1) + "upstreams: [ { name: key, models: [ shared ] } ]\n" +
			"lanes: [ { name: one, max_concurrent: 100 }, { name: narrow, max_concurrent: 1 } ]\n")},
		{Name: "q.yaml", Data: []byte("domain: other\ndescriptors: [ { key: user, subject: true, limits: [ { name: n, meter: requests, algorithm: fixed_window, limit: 9/minute } ] } ]")},
	}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	if g.Server, err = server.New(server.Config{
		GRPCAddr: ":0", HTTPAddr: ":0", AdminAddr: ":0", Directory: directory, Log: log, Access: g.tokens, InsecureAPI: true, // which opens nothing here
	}, e, &health.State{}, g.metrics); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gated) set(t *testing.T, file string) {
	t.Helper()
	l, err := access.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	g.tokens.Set(l)
}

// verdict is the code and the reason of an answer: "OK".
type verdict struct{ code, reason string }

var (
	passes          = verdict{"OK", ""}
	unauthenticated = verdict{"Unauthenticated", "NOT_AUTHENTICATED"}
	notPermitted    = verdict{"PermissionDenied", "NOT_PERMITTED"}
	outOfScope      = verdict{"PermissionDenied", "OUT_OF_SCOPE"}
)

// ask calls SERVICE/METHOD of ration.v1 with what stands in the header authorization, over gRPC and over HTTP, which have
// to answer the same, and fills answer.
func (g *gated) ask(t *testing.T, method string, request, answer proto.Message, authorization ...string) verdict {
	t.Helper()
	listener, site := "gRPC", "HTTP"
	if strings.HasPrefix(method, "AdminService") {
		listener, site = "admin", "admin"
	}
	ctx := t.Context()
	for _, a := range authorization {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a)
	}
	err := client(t, loopback(t, g.Addr(listener))).Invoke(ctx, "/ration.v1."+method, request, answer)
	got := verdict{code: status.Code(err).String()}
	if err != nil {
		got.reason = saidBy(t, err).reason
	}
	body, err2 := protojson.Marshal(request)
	if err2 != nil {
		t.Fatal(err2)
	}
	r, err2 := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+loopback(t, g.Addr(site))+"/ration.v1."+method, strings.NewReader(string(body)))
	if err2 != nil {
		t.Fatal(err2)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header["Authorization"] = authorization
	over, err2 := http.DefaultClient.Do(r)
	if err2 != nil {
		t.Fatal(err2)
	}
	defer over.Body.Close()
	text, err2 := io.ReadAll(over.Body)
	if err2 != nil {
		t.Fatal(err2)
	}
	want := map[string]int{"OK": 200, "Unauthenticated": 401, "PermissionDenied": 403}[got.code]
	if want != 0 && (over.StatusCode != want || got.reason != "" && !strings.Contains(string(text), `"`+got.reason+`"`)) {
		t.Errorf("%s: over HTTP %d %s, over gRPC %v", method, over.StatusCode, text, err)
	}
	if challenge := over.Header.Get("WWW-Authenticate"); (challenge == "Bearer") != (over.StatusCode == 401) {
		t.Errorf("%s: %d with the challenge %q", method, over.StatusCode, challenge)
	}
	return got
}

func (g *gated) as(name string) string { return "Bearer " + g.token[name] }

// refusals returns how many calls were refused for a cause.
func (g *gated) refusals(t *testing.T, cause string) (n int) {
	t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "ration_access_refused_total" && m.GetLabel()[0].GetValue() == cause {
				n = int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

var everybody = map[string]string{
	"app": "may: account", "reader": "may: [read]", "ops": "may: admin", "both": "may: [read, admin]",
	"llm": "may: account, domains: [llm]", "alice": "may: account, domains: [llm], subjects: [user=alice, user=team-*]",
	"looks": "may: read, subjects: [user=alice]", "old": "may: account, expires: 2026-11-23",
}

// Each right permits its methods and no others, over gRPC and HTTP alike.
func TestRights(t *testing.T) {
	g := gatedBy(t, func() time.Time { return time.Unix(0, 0) }, everybody)
	check := &rationv1.CheckRequest{Caller: user("alice")}
	for _, c := range []struct {
		method          string
		request, answer proto.Message
		may             string // the names of those who are let in
	}{
		{"AccountingService/Check", check, &rationv1.CheckResponse{}, "app reader both"},
		{"AccountingService/Reserve", &rationv1.ReserveRequest{Caller: user("alice")}, &rationv1.ReserveResponse{}, "app"},
		{"AccountingService/Record", &rationv1.RecordRequest{Caller: user("alice")}, &rationv1.RecordResponse{}, "app"},
		{"AccountingService/BatchSettle", &rationv1.BatchSettleRequest{}, &rationv1.BatchSettleResponse{}, "app"},
		{"AccountingService/ReportUpstream", &rationv1.ReportUpstreamRequest{Domain: "llm", Upstream: "key"}, &rationv1.ReportUpstreamResponse{}, "app"},
		{"UsageService/GetUsage", &rationv1.GetUsageRequest{Caller: user("alice")}, &rationv1.GetUsageResponse{}, "app reader both"},
		{"UsageService/Explain", &rationv1.ExplainRequest{Caller: user("alice")}, &rationv1.ExplainResponse{}, "app reader both"},
		{"StatusService/GetHealth", &rationv1.GetHealthRequest{}, &rationv1.GetHealthResponse{}, "app reader ops both"},
		{"AdminService/ListSubjects", &rationv1.ListSubjectsRequest{Domain: "llm"}, &rationv1.ListSubjectsResponse{}, "ops both"},
	} {
		for _, name := range []string{"app", "reader", "ops", "both"} {
			want := notPermitted
			if strings.Contains(" "+c.may+" ", " "+name+" ") {
				want = passes
			}
			if got := g.ask(t, c.method, c.request, c.answer, g.as(name)); got != want {
				t.Errorf("%s by %s: %v, want %v", c.method, name, got, want)
			}
		}
		if got := g.ask(t, c.method, c.request, c.answer); got != unauthenticated {
			t.Errorf("%s by nobody: %v", c.method, got)
		}
	}
	stream, err := rationv1.NewUsageServiceClient(client(t, loopback(t, g.Addr("gRPC")))).WatchEvents(t.Context(), &rationv1.WatchEventsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream by nobody: %v", err)
	}
}

// What Envoy and probes call needs no token.
func TestNoTokenForEnvoy(t *testing.T) {
	g := gatedBy(t, nil, everybody)
	conn := client(t, loopback(t, g.Addr("gRPC")))
	if _, err := ratelimitv3.NewRateLimitServiceClient(conn).ShouldRateLimit(t.Context(), &ratelimitv3.RateLimitRequest{
		Domain: "llm", Descriptors: []*commonv3.RateLimitDescriptor{{Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "user", Value: "alice"}}}},
	}); err != nil {
		t.Errorf("Envoy: %v", err)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("the health: %v", err)
	}
	if got := post(t, loopback(t, g.Addr("HTTP")), "json", `{"domain":"llm","descriptors":[{"entries":[{"key":"user","value":"a"}]}]}`); got.status != 200 {
		t.Errorf("/json: %+v", got)
	}
}

// Where tokens are asked for AdminService may be called by a name: no page in a browser knows a token.
func TestAdminByAName(t *testing.T) {
	g := gatedBy(t, nil, everybody)
	for authorization, want := range map[string]int{g.as("ops"): http.StatusOK, "": http.StatusUnauthorized} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://"+loopback(t, g.Addr("admin"))+"/ration.v1.AdminService/ListSubjects", strings.NewReader(`{"domain": "llm"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "ration.example"
		r.Header.Set("Content-Type", "application/json")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("with a token %t: %d, want %d", authorization != "", answer.StatusCode, want)
		}
	}
}

// Whatever is not a token that is known and has not expired is refused, and counted by cause.
func TestTokensThatAreNotTaken(t *testing.T) {
	now := time.Date(2026, 11, 22, 23, 59, 59, 0, time.UTC)
	g := gatedBy(t, func() time.Time { return now }, everybody)
	check, answer := &rationv1.CheckRequest{Caller: user("alice")}, &rationv1.CheckResponse{}
	if got := g.ask(t, "AccountingService/Check", check, answer, g.as("old")); got != passes {
		t.Errorf("a second before it expires: %v", got)
	}
	now = now.Add(time.Second)
	if got := g.ask(t, "AccountingService/Check", check, answer, g.as("old")); got != unauthenticated || g.refusals(t, "expired") != 2 {
		t.Errorf("expired: %v, counted %d", got, g.refusals(t, "expired"))
	}
	app := g.token["app"]
	for name, sent := range map[string][]string{
		"another":            {"Bearer ration_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
		"one letter changed": {"Bearer " + app[:len(app)-1] + "_"},
		"its beginning":      {"Bearer " + app[:20]},
		"something behind":   {"Bearer " + app + "x"},
		"another scheme":     {"Basic " + app},
		"no scheme":          {app},
		"nothing":            {"Bearer "},
		"two":                {"Bearer " + app, "Bearer " + app},
		"a huge one":         {"Bearer " + strings.Repeat("x", 100_000)},
	} {
		before := g.refusals(t, "unknown")
		if got := g.ask(t, "AccountingService/Check", check, answer, sent...); got != unauthenticated || g.refusals(t, "unknown") != before+2 {
			t.Errorf("%s: %v, counted %d", name, got, g.refusals(t, "unknown")-before)
		}
	}
	if got := g.ask(t, "AccountingService/Check", check, answer, "bearer  "+app); got != passes {
		t.Errorf("the scheme in small letters, and two spaces: %v", got)
	}
}

// However many wrong tokens come, the log says nothing of them, nor of right ones.
func TestTokensAreNotLogged(t *testing.T) {
	g := gatedBy(t, nil, everybody)
	conn := client(t, loopback(t, g.Addr("gRPC")))
	before := len(g.log.String())
	for i := range 3000 {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", fmt.Sprintf("Bearer ration_wrong%d", i))
		_, err := rationv1.NewAccountingServiceClient(conn).Check(ctx, &rationv1.CheckRequest{Caller: user("alice")})
		if status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "ration_wrong") {
			t.Fatal(err)
		}
	}
	g.ask(t, "AccountingService/Check", &rationv1.CheckRequest{Caller: user("alice")}, &rationv1.CheckResponse{}, g.as("app"))
	if said := g.log.String()[before:]; len(said) > 1000 || strings.Contains(said, "ration_") {
		t.Errorf("the log says %d bytes: %.500s", len(said), said)
	}
	if n := g.refusals(t, "unknown"); n != 3000 {
		t.Errorf("%d refusals are counted, want 3000", n)
	}
}

// A token acts for its domains and subjects alone, however they are named.
func TestScope(t *testing.T) {
	g := gatedBy(t, func() time.Time { return time.Unix(0, 0) }, everybody)
	caller := func(domain string, attributes ...string) *rationv1.Caller {
		c := &rationv1.Caller{Domain: domain, Attributes: map[string]string{}, Model: "small"}
		for i := 0; i < len(attributes); i += 2 {
			c.Attributes[attributes[i]] = attributes[i+1]
		}
		return c
	}
	for _, key := range []struct{ subject, key string }{{"alice", "the key of alice"}, {"bob", "the key of bob, who pays"}} {
		add := &rationv1.AddKeyRequest{Subject: named(key.subject), Of: &rationv1.AddKeyRequest_Key{Key: key.key}, Label: "laptop", Actor: actor()}
		put := &rationv1.PutSubjectRequest{Subject: named(key.subject), Actor: actor()}
		if got := g.ask(t, "AdminService/PutSubject", put, &rationv1.PutSubjectResponse{}, g.as("ops")); got != passes {
			t.Fatal(got)
		}
		if got := g.ask(t, "AdminService/AddKey", add, &rationv1.AddKeyResponse{}, g.as("ops")); got != passes {
			t.Fatal(got)
		}
	}
	byKey := func(key string, attributes ...string) *rationv1.Caller {
		c := caller("llm", attributes...)
		c.ApiKey = key
		return c
	}
	for _, c := range []struct {
		token  string
		caller *rationv1.Caller
		want   verdict
	}{
		{"llm", caller("llm", "user", "bob"), passes},
		{"llm", caller("llm"), passes},
		{"llm", caller("other", "user", "bob"), outOfScope},
		{"llm", caller("nowhere", "user", "bob"), outOfScope}, // not: that there is none
		{"alice", caller("llm", "user", "alice"), passes},
		{"alice", caller("llm", "user", "alice", "team", "red"), passes},
		{"alice", caller("llm", "user", "team-7"), passes},
		{"alice", caller("llm", "user", "bob"), outOfScope},
		{"alice", caller("llm", "user", "alicea"), outOfScope},
		{"alice", caller("llm", "team", "alice"), outOfScope},
		{"alice", caller("llm"), outOfScope},
		{"alice", byKey("the key of alice"), passes},
		{"alice", byKey("the key of bob, who pays"), outOfScope},
		{"alice", byKey("the key of bob, who pays", "user", "alice"), outOfScope}, // the key says who it is
		{"alice", byKey("the key of nobody at all"), outOfScope},
		{"app", byKey("the key of bob, who pays"), passes},
	} {
		if got := g.ask(t, "AccountingService/Reserve", &rationv1.ReserveRequest{Caller: c.caller}, &rationv1.ReserveResponse{}, g.as(c.token)); got != c.want {
			t.Errorf("Reserve of %v by %s: %v, want %v", c.caller, c.token, got, c.want)
		}
		if got := g.ask(t, "AccountingService/Record", &rationv1.RecordRequest{Caller: c.caller}, &rationv1.RecordResponse{}, g.as(c.token)); got != c.want {
			t.Errorf("Record of %v by %s: %v, want %v", c.caller, c.token, got, c.want)
		}
		if got := g.ask(t, "UsageService/GetUsage", &rationv1.GetUsageRequest{Caller: c.caller}, &rationv1.GetUsageResponse{}, g.as(c.token)); got != c.want {
			t.Errorf("GetUsage of %v by %s: %v, want %v", c.caller, c.token, got, c.want)
		}
	}
}

// What is over all subjects, or about what they share, is for tokens that are bound to none.
func TestScopeOfUsage(t *testing.T) {
	g := gatedBy(t, func() time.Time { return time.Unix(0, 0) }, everybody)
	from := timestamppb.New(time.Now().Add(-time.Hour))
	for _, c := range []struct {
		token, domain, subject string
		want                   verdict
	}{
		{"llm", "llm", "", passes}, {"llm", "other", "", outOfScope}, {"looks", "llm", "user=alice", passes},
		{"looks", "llm", "user=bob", outOfScope}, {"looks", "llm", "", outOfScope},
	} {
		request := &rationv1.QueryUsageRequest{Domain: c.domain, Subject: c.subject, From: from}
		if got := g.ask(t, "UsageService/QueryUsage", request, &rationv1.QueryUsageResponse{}, g.as(c.token)); got != c.want {
			t.Errorf("QueryUsage of %q in %s by %s: %v, want %v", c.subject, c.domain, c.token, got, c.want)
		}
	}
	for token, want := range map[string]verdict{"llm": passes, "alice": outOfScope} {
		report := &rationv1.ReportUpstreamRequest{Domain: "llm", Upstream: "key"}
		if got := g.ask(t, "AccountingService/ReportUpstream", report, &rationv1.ReportUpstreamResponse{}, g.as(token)); got != want {
			t.Errorf("ReportUpstream by %s: %v, want %v", token, got, want)
		}
	}
	for token, want := range map[string]verdict{"llm": passes, "looks": outOfScope} {
		if got := g.ask(t, "UsageService/TopUsage", &rationv1.TopUsageRequest{Domain: "llm"}, &rationv1.TopUsageResponse{}, g.as(token)); got != want {
			t.Errorf("TopUsage by %s: %v, want %v", token, got, want)
		}
	}
	if n := g.refusals(t, "scope"); n != 2*5 {
		t.Errorf("%d refusals are counted, want each, over gRPC and HTTP", n)
	}
}

// A reservation is ended by those who may act for whom it was made, and changed by nobody else.
func TestScopeOfReservations(t *testing.T) {
	g := gatedBy(t, func() time.Time { return time.Unix(0, 0) }, everybody)
	var r rationv1.ReserveResponse
	g.ask(t, "AccountingService/Reserve", &rationv1.ReserveRequest{Caller: user("bob"), Estimate: estimate(10, 10)}, &r, g.as("app"))
	id := r.GetReservation().GetId()
	settle := &rationv1.SettleRequest{ReservationId: id, Usage: tokens(10, 5), Caller: user("alice")}
	for method, call := range map[string][2]proto.Message{
		"Settle":   {settle, &rationv1.SettleResponse{}},
		"Progress": {&rationv1.ProgressRequest{ReservationId: id}, &rationv1.ProgressResponse{}},
		"Release":  {&rationv1.ReleaseRequest{ReservationId: id}, &rationv1.ReleaseResponse{}},
	} {
		if got := g.ask(t, "AccountingService/"+method, call[0], call[1], g.as("alice")); got != outOfScope {
			t.Errorf("%s of another's: %v", method, got)
		}
	}
	var batch rationv1.BatchSettleResponse
	before := g.refusals(t, "scope")
	g.ask(t, "AccountingService/BatchSettle", &rationv1.BatchSettleRequest{
		Items: []*rationv1.BatchItem{{Report: &rationv1.BatchItem_Settle{Settle: settle}}},
	}, &batch, g.as("alice"))
	if e := batch.GetResults()[0].GetError(); e.GetReason() != "OUT_OF_SCOPE" || g.refusals(t, "scope") != before+2 {
		t.Errorf("in a batch: %v, counted %d", batch.GetResults(), g.refusals(t, "scope")-before)
	}
	var own rationv1.ReserveResponse
	g.ask(t, "AccountingService/Reserve", &rationv1.ReserveRequest{Caller: user("alice")}, &own, g.as("alice"))
	lost := &rationv1.SettleRequest{ReservationId: strings.Repeat("ab", len(id)/2), Usage: tokens(1, 1), Caller: user("alice")}
	for range 2 { // once more, as who got no answer does
		for _, r := range []*rationv1.SettleRequest{lost, {ReservationId: own.GetReservation().GetId(), Usage: tokens(1, 1)}} {
			if got := g.ask(t, "AccountingService/Settle", r, &rationv1.SettleResponse{}, g.as("alice")); got != passes {
				t.Errorf("what belongs to alice, %v: %v", r, got)
			}
		}
	}
	var settled rationv1.SettleResponse
	if got := g.ask(t, "AccountingService/Settle", settle, &settled, g.as("app")); got != passes || settled.GetState() != rationv1.State_STATE_SETTLED || settled.GetReplayed() {
		t.Errorf("by who may: %v, %v", got, &settled)
	}
}

// A new list is in force with the next call, on connections that are open too.
func TestTokensAreReplaced(t *testing.T) {
	g := gatedBy(t, nil, map[string]string{"app": "may: account"})
	check, answer := &rationv1.CheckRequest{Caller: user("alice")}, &rationv1.CheckResponse{}
	for file, want := range map[string]verdict{
		"tokens: []": unauthenticated, "tokens:\n" + g.entries: passes,
		"tokens:\n" + strings.Replace(g.entries, "account", "admin", 1): notPermitted,
	} {
		g.set(t, file)
		if got := g.ask(t, "AccountingService/Check", check, answer, g.as("app")); got != want {
			t.Errorf("with %s: %v, want %v", file, got, want)
		}
	}
}
