package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	subjects "github.com/rationhq/ration/subject/memory"
	subjectredis "github.com/rationhq/ration/subject/redis"
)

// people limits those who have tiers, and the whole domain.
const people = `
domain: llm
tiers: [ { name: free }, { name: pro } ]
anonymous: deny
prices: { book: none, models: { small: { input: "1.00", output: "2.00" } } }
usage: { tags: [ team ] }
limits:
  - { name: company, meter: tokens, algorithm: calendar, limit: 1M/day }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: tokens, meter: tokens, algorithm: calendar, warn_at: [ 80% ], tiers: { free: { limit: 1_000/month }, pro: { limit: 10_000/month } } }
      - { name: spend, meter: cost, algorithm: calendar, limit: $5/month }
      - { name: requests, meter: requests, algorithm: token_bucket, rate: 100/minute }
      - { name: at-once, meter: concurrency, limit: 5 }
      - { name: extra, meter: tokens, algorithm: sliding_window, tiers: { free: { limit: 100_000/day }, pro: unlimited } }
`

// lockedBuffer takes a log that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// office is a server with all services of ration.v1.
type office struct {
	*server.Server
	rationv1.AdminServiceClient
	rationv1.AccountingServiceClient
	rationv1.UsageServiceClient
	log  *lockedBuffer
	halt context.CancelFunc // begins the end of the server
}

// everywhere runs a test over counters and a directory in memory, and over those in Redis.
func everywhere(t *testing.T, test func(*testing.T, *office)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, administer(t)) })
	t.Run("redis", func(t *testing.T) {
		opts := redis.Options{URL: redistest.Start(t).URL()}
		counters, err := redis.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := redis.NewClient(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		directory, err := subjectredis.New(conn, subjectredis.Options{})
		if err != nil {
			t.Fatal(err)
		}
		test(t, administerOver(t, counters, directory))
	})
}

// administer serves people, with a directory in memory that is empty.
func administer(t *testing.T) *office {
	t.Helper()
	return administerOver(t, memory.New(memory.Options{}), subjects.New(subjects.Options{}))
}

// administerOver serves people over counters, which it closes, and a directory.
func administerOver(t *testing.T, counters store.Store, directory subject.Directory) *office {
	t.Helper()
	t.Cleanup(func() { _ = counters.Close() })
	cache := subject.NewCache(directory, subject.CacheOptions{})
	t.Cleanup(cache.Close)
	o := &office{log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e := engine.New(counters, engine.Options{Subjects: cache, Log: log})
	t.Cleanup(e.Close)
	p, _, err := policy.Parse([]policy.Source{{Name: "p.yaml", Data: []byte(people)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	const free = "127.0.0.1:0"
	o.Server, err = server.New(server.Config{
		GRPCAddr: free, HTTPAddr: free, AdminAddr: free, Directory: directory, Log: log,
	}, e, &health.State{}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	o.halt = stop
	ended := make(chan error, 1)
	go func() { ended <- o.Serve(ctx) }()
	t.Cleanup(func() { // after the connections of clients are closed
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	o.AdminServiceClient = rationv1.NewAdminServiceClient(client(t, o.Addr("admin")))
	conn := client(t, o.Addr("gRPC"))
	o.AccountingServiceClient, o.UsageServiceClient = rationv1.NewAccountingServiceClient(conn), rationv1.NewUsageServiceClient(conn)
	return o
}

func named(name string) *rationv1.SubjectName {
	return &rationv1.SubjectName{Domain: "llm", Name: name}
}

func actor() *rationv1.Actor { return &rationv1.Actor{Name: "ann", Reason: "ticket 7"} }

func user(name string) *rationv1.Caller {
	return &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": name}, Model: "small"}
}

// must returns what a call has answered.
func must[T any](t *testing.T) func(answer T, err error) T {
	return func(answer T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

// stands returns how the limits of alice stand, PATH:USED/CAPACITY, those that are named.
func (o *office) stands(t *testing.T, limits ...string) string {
	t.Helper()
	got := must[*rationv1.GetUsageResponse](t)(o.GetUsage(t.Context(), &rationv1.GetUsageRequest{Caller: user("alice")}))
	var all []string
	for _, l := range got.GetLimits() {
		if s := l.GetStatus(); slices.Contains(limits, s.GetName()) {
			all = append(all, fmt.Sprintf("%s:%d/%d", s.GetName(), s.GetUsed(), s.GetCapacity()))
		}
	}
	slices.Sort(all)
	return strings.Join(append(all, got.GetTier()), " ")
}

// What an operator changes counts for the next call: the tier, one limit, an allowance, and whether there is any.
func TestAdminChangesCount(t *testing.T) { everywhere(t, changesCount) }

func changesCount(t *testing.T, o *office) {
	expect := func(what, want string) {
		t.Helper()
		if got := o.stands(t, "tokens"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("nobody knows her", "tokens:0/1000 free")

	tier, zone, day := "pro", "Europe/Berlin", int32(31)
	put := must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{
		Subject: named("alice"), Actor: actor(), Tier: &tier, TimeZone: &zone, BillingDay: &day, Attributes: map[string]string{"org": "acme", "team": "a"},
	}))
	if s := put.GetSubject(); s.GetKey() != "user" || s.GetTimeZone() != zone || s.GetBillingDay() != day || s.GetRevision() != 1 {
		t.Errorf("put, she is %v", s)
	}
	expect("in another tier", "tokens:0/10000 pro")

	must[*rationv1.PutOverrideResponse](t)(o.PutOverride(t.Context(), &rationv1.PutOverrideRequest{
		Subject: named("alice"), Actor: actor(), Override: &rationv1.Override{Limit: "llm.user.tokens", Quantity: "500/month"},
	}))
	expect("overridden", "tokens:0/500 pro")

	grant := &rationv1.GrantRequest{Subject: named("alice"), Actor: actor(), Limit: "llm.user.tokens", Amount: "2_000", Id: "sorry"}
	first := must[*rationv1.GrantResponse](t)(o.Grant(t.Context(), grant)).GetGrant()
	again := must[*rationv1.GrantResponse](t)(o.Grant(t.Context(), grant)).GetGrant()
	if !proto.Equal(first, again) || first.GetAmount() != 2_000 || first.GetReason() != "ticket 7" {
		t.Errorf("granted %v, and when sent again %v", first, again)
	}
	if end := first.GetExpiresAt().AsTime(); end.Day() != 1 || end.Sub(end.Truncate(24*time.Hour)) != 0 || !end.After(time.Now()) {
		t.Errorf("the grant ends at %v, want the first of the next month", end)
	}
	expect("with a grant", "tokens:0/2500 pro")
	named1 := must[*rationv1.GrantResponse](t)(o.Grant(t.Context(), &rationv1.GrantRequest{
		Subject: named("alice"), Actor: actor(), Limit: "llm.user.spend", Amount: "$1.50", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	})).GetGrant()
	if named1.GetId() == "" || named1.GetAmount() != 1_500_000_000 {
		t.Errorf("granted money: %v", named1)
	}

	must[*rationv1.RevokeResponse](t)(o.Revoke(t.Context(), &rationv1.RevokeRequest{Subject: named("alice"), Id: "sorry", Actor: actor()}))
	expect("revoked", "tokens:0/500 pro")
	must[*rationv1.DeleteOverrideResponse](t)(o.DeleteOverride(t.Context(),
		&rationv1.DeleteOverrideRequest{Subject: named("alice"), Limit: "llm.user.tokens", Actor: actor()}))
	expect("as her tier has it", "tokens:0/10000 pro")

	reserve := func() rationv1.Verdict {
		t.Helper()
		return must[*rationv1.ReserveResponse](t)(o.Reserve(t.Context(),
			&rationv1.ReserveRequest{Caller: user("alice"), Estimate: estimate(1, 1)})).GetDecision().GetVerdict()
	}
	for _, suspended := range []bool{true, false} {
		must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(),
			&rationv1.PutSubjectRequest{Subject: named("alice"), Actor: actor(), Suspended: &suspended}))
		if got := reserve(); (got == rationv1.Verdict_VERDICT_BLOCKED) != suspended {
			t.Errorf("suspended %t: %v", suspended, got)
		}
	}
	must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(),
		&rationv1.PutSubjectRequest{Subject: named("alice"), Actor: actor(), Attributes: map[string]string{"org": ""}}))
	got := must[*rationv1.GetSubjectResponse](t)(o.GetSubject(t.Context(), &rationv1.GetSubjectRequest{Subject: named("alice")})).GetSubject()
	if got.GetTier() != "pro" || got.GetTimeZone() != zone || len(got.GetAttributes()) != 1 || got.GetAttributes()["team"] != "a" {
		t.Errorf("what was not named has not stayed: %v", got)
	}
	must[*rationv1.DeleteSubjectResponse](t)(o.DeleteSubject(t.Context(), &rationv1.DeleteSubjectRequest{Subject: named("alice"), Actor: actor()}))
	expect("forgotten", "tokens:0/1000 free")
}

// A key stands for a subject however it was given, and is in no answer, no log and no change.
func TestAPIKeysStaySecret(t *testing.T) { everywhere(t, keysStaySecret) }

func keysStaySecret(t *testing.T, o *office) {
	const plain, hashed = "sk-clear-0123456789abcdef", "sk-hashed-0123456789abcdef"
	sum := func(key string) string {
		h := sha256.Sum256([]byte(key))
		return hex.EncodeToString(h[:])
	}
	var answers strings.Builder
	note := func(m proto.Message) { fmt.Fprintln(&answers, protojson.Format(m)) }
	for _, r := range []*rationv1.AddKeyRequest{
		{Of: &rationv1.AddKeyRequest_Key{Key: plain}, Label: "laptop"}, {Of: &rationv1.AddKeyRequest_Sha256{Sha256: sum(hashed)}, Label: "server"},
		{Of: &rationv1.AddKeyRequest_Key{Key: plain}, Label: "again"},
	} {
		r.Subject, r.Actor = named("alice"), actor()
		added := must[*rationv1.AddKeyResponse](t)(o.AddKey(t.Context(), r))
		if k := added.GetKey(); len(k.GetFingerprint()) != 8 || k.GetCreatedAt() == nil || k.GetLabel() == "again" {
			t.Errorf("added %v", k)
		}
		note(added)
	}
	_, err := o.AddKey(t.Context(), &rationv1.AddKeyRequest{Subject: named("bob"), Actor: actor(), Of: &rationv1.AddKeyRequest_Key{Key: plain}})
	if got := saidBy(t, err); got != (said{codes.AlreadyExists, "KEY_TAKEN", "", false}) {
		t.Errorf("the key of another: %+v", got)
	}
	fmt.Fprintln(&answers, err)

	reserve := func(key string) rationv1.Verdict {
		t.Helper()
		r := must[*rationv1.ReserveResponse](t)(o.Reserve(t.Context(), &rationv1.ReserveRequest{
			Caller: &rationv1.Caller{Domain: "llm", ApiKey: key, Model: "small"}, Estimate: estimate(1, 1)}))
		note(r)
		return r.GetDecision().GetVerdict()
	}
	for _, key := range []string{plain, hashed} {
		if got := reserve(key); got != rationv1.Verdict_VERDICT_ADMITTED {
			t.Errorf("by a key: %v", got)
		}
	}
	known := must[*rationv1.GetSubjectResponse](t)(o.GetSubject(t.Context(), &rationv1.GetSubjectRequest{Subject: named("alice")}))
	note(known)
	if len(known.GetSubject().GetKeys()) != 2 {
		t.Fatalf("she has the keys %v, want two", known.GetSubject().GetKeys())
	}
	must[*rationv1.DeleteKeyResponse](t)(o.DeleteKey(t.Context(),
		&rationv1.DeleteKeyRequest{Subject: named("alice"), Actor: actor(), Fingerprint: sum(plain)[:8]}))
	if a, b := reserve(plain), reserve(hashed); a != rationv1.Verdict_VERDICT_BLOCKED || b != rationv1.Verdict_VERDICT_ADMITTED {
		t.Errorf("by the key that was deleted: %v, by the other one: %v", a, b)
	}
	note(must[*rationv1.ListChangesResponse](t)(o.ListChanges(t.Context(), &rationv1.ListChangesRequest{Domain: "llm"})))
	note(must[*rationv1.ListSubjectsResponse](t)(o.ListSubjects(t.Context(), &rationv1.ListSubjectsRequest{Domain: "llm"})))
	for _, secret := range []string{plain, hashed, sum(plain)[8:], sum(hashed)[8:]} {
		if strings.Contains(answers.String()+o.log.String(), secret) {
			t.Errorf("%s… is in an answer or in the log:\n%s\n%s", secret[:8], answers.String(), o.log.String())
		}
	}
}

// Usage is corrected by hand, and it stands among the changes who has done it.
func TestCorrections(t *testing.T) { everywhere(t, corrections) }

func corrections(t *testing.T, o *office) {
	must[*rationv1.RecordResponse](t)(o.Record(t.Context(), &rationv1.RecordRequest{
		Caller: user("alice"), Usage: &rationv1.Usage{InputTokens: 400, OutputTokens: 200}}))
	held := must[*rationv1.ReserveResponse](t)(o.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: user("alice"), Estimate: estimate(100, 50)}))
	expect := func(what, want string) {
		t.Helper()
		if got := o.stands(t, "tokens", "spend", "extra"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("used", "extra:600/100000 spend:800000/5000000000 tokens:600/1000 free")
	adjust := func(amount int64) *rationv1.LimitStatus {
		t.Helper()
		return must[*rationv1.AdjustUsageResponse](t)(o.AdjustUsage(t.Context(), &rationv1.AdjustUsageRequest{
			Caller: user("alice"), Limit: "llm.user.tokens", Amount: amount, Actor: actor()})).GetStatus()
	}
	if s := adjust(-250); s.GetUsed() != 350 || s.GetHeld() != 150 || s.GetRemaining() != 500 {
		t.Errorf("250 less: %v", s)
	}
	if s := adjust(900); s.GetUsed() != 1_250 || s.GetRemaining() != -400 {
		t.Errorf("900 more, beyond the limit: %v", s)
	}
	if s := adjust(-5_000); s.GetUsed() != 0 || s.GetHeld() != 150 {
		t.Errorf("more than there is: %v", s)
	}
	if again := []int64{adjust(7).GetUsed(), adjust(7).GetUsed(), adjust(-14).GetUsed()}; !slices.Equal(again, []int64{7, 14, 0}) {
		t.Errorf("the same again is done again: %v", again)
	}
	expect("one limit was adjusted", "extra:600/100000 spend:800000/5000000000 tokens:0/1000 free")
	all := must[*rationv1.ResetUsageResponse](t)(o.ResetUsage(t.Context(), &rationv1.ResetUsageRequest{Caller: user("alice"), Actor: actor()})).GetLimits()
	if len(all) != 4 {
		t.Errorf("reset: %v, want the four limits of the subject without that of calls at the same time", all)
	}
	expect("all were reset", "extra:0/100000 spend:0/5000000000 tokens:0/1000 free")
	must[*rationv1.SettleResponse](t)(o.Settle(t.Context(), &rationv1.SettleRequest{
		ReservationId: held.GetReservation().GetId(), Usage: &rationv1.Usage{OutputTokens: 30}}))
	expect("what was held is settled as ever", "extra:30/100000 spend:60000/5000000000 tokens:30/1000 free")

	changes := must[*rationv1.ListChangesResponse](t)(o.ListChanges(t.Context(),
		&rationv1.ListChangesRequest{Domain: "llm", Name: "alice"})).GetChanges()
	var actions []string
	for _, c := range changes {
		actions = append(actions, c.GetAction())
		if !proto.Equal(c.GetActor(), actor()) || c.GetName() != "alice" || c.GetTime() == nil || !strings.Contains(c.GetAfter(), `"corrected":{"limit":"llm.user.`) {
			t.Errorf("written down as %v", c)
		}
	}
	if got := strings.Join(actions, " "); got != "reset_usage reset_usage reset_usage"+strings.Repeat(" adjust_usage", 6) {
		t.Errorf("written down: %s", got)
	}
	if last := changes[len(changes)-1]; !strings.Contains(last.GetAfter(), `"limit":"llm.user.tokens","amount":-250`) {
		t.Errorf("the first one is written down as %s", last.GetAfter())
	}
	written := func(limit, quantity string) (*rationv1.LimitStatus, error) {
		r, err := o.AdjustUsage(t.Context(), &rationv1.AdjustUsageRequest{Caller: user("alice"), Limit: limit, Quantity: quantity, Actor: actor()})
		return r.GetStatus(), err
	}
	if s, err := written("llm.user.spend", "$1.50"); err != nil || s.GetUsed() != 1_500_060_000 {
		t.Errorf("$1.50 more: %v, %v", s, err)
	}
	if s, err := written("llm.user.spend", "-$1.50"); err != nil || s.GetUsed() != 60_000 {
		t.Errorf("$1.50 less: %v, %v", s, err)
	}
	for limit, quantity := range map[string]string{"llm.user.spend": "5", "llm.user.tokens": "-$5"} {
		if _, err := written(limit, quantity); saidBy(t, err) != (said{codes.InvalidArgument, "INVALID_FIELD", "quantity", false}) {
			t.Errorf("%s of %s: %v", quantity, limit, err)
		}
	}
}

// Each mistake is named with its field, over gRPC and as JSON alike.
func TestAdminErrors(t *testing.T) {
	o := administer(t)
	tier, pro, day, zone := "gold", "pro", int32(32), "Mars/Olympus"
	must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{Subject: named("paul"), Actor: actor(), Tier: &pro}))
	must[*rationv1.GrantResponse](t)(o.Grant(t.Context(), &rationv1.GrantRequest{
		Subject: named("paul"), Actor: actor(), Limit: "llm.user.tokens", Amount: "1", Id: "g"}))
	invalid := func(field string) said { return said{codes.InvalidArgument, "INVALID_FIELD", field, false} }
	missing := said{codes.NotFound, "UNKNOWN_SUBJECT", "", false}
	override := func(limit, quantity string) *rationv1.PutOverrideRequest {
		return &rationv1.PutOverrideRequest{Subject: named("paul"), Actor: actor(), Override: &rationv1.Override{Limit: limit, Quantity: quantity}}
	}
	grant := func(limit, amount string) *rationv1.GrantRequest {
		return &rationv1.GrantRequest{Subject: named("paul"), Actor: actor(), Limit: limit, Amount: amount}
	}
	past := grant("llm.user.tokens", "5")
	past.ExpiresAt = timestamppb.New(time.Now().Add(-time.Minute))
	other := grant("llm.user.tokens", "5")
	other.Id = "g"
	adjust := func(limit string) *rationv1.AdjustUsageRequest {
		return &rationv1.AdjustUsageRequest{Caller: user("paul"), Limit: limit, Amount: 1, Actor: actor()}
	}
	for _, c := range []struct {
		name, method string
		request      proto.Message
		want         said
		http         int
		says         string
	}{
		{"no domain", "PutSubject", &rationv1.PutSubjectRequest{Actor: actor()}, invalid("subject.domain"), 400, ""},
		{"no name", "PutSubject", &rationv1.PutSubjectRequest{Subject: named(""), Actor: actor()}, invalid("subject.name"), 400, ""},
		{"nobody", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("a"), Actor: &rationv1.Actor{Reason: "r"}}, invalid("actor.name"), 400, ""},
		{"no reason", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("a"), Actor: &rationv1.Actor{Name: "n", Reason: " "}}, invalid("actor.reason"), 400, ""},
		{"unknown tier", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("a"), Actor: actor(), Tier: &tier}, invalid("tier"), 400, "free, pro"},
		{"billing day", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("a"), Actor: actor(), BillingDay: &day}, invalid("billing_day"), 400, "1…31"},
		{"time zone", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("a"), Actor: actor(), TimeZone: &zone}, invalid("time_zone"), 400, "Europe/Berlin"},
		{"other key", "PutSubject", &rationv1.PutSubjectRequest{Subject: &rationv1.SubjectName{Domain: "llm", Key: "org", Name: "a"}, Actor: actor()},
			invalid("subject.key"), 400, "user"},
		{"unknown domain", "PutSubject", &rationv1.PutSubjectRequest{Subject: &rationv1.SubjectName{Domain: "x", Name: "a"}, Actor: actor()},
			said{codes.FailedPrecondition, "UNKNOWN_DOMAIN", "", false}, 400, ""},
		{"old revision", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("paul"), Actor: actor(), Revision: 77},
			said{codes.Aborted, "CHANGED_MEANWHILE", "", false}, 503, "read it again"},
		{"negative revision", "PutSubject", &rationv1.PutSubjectRequest{Subject: named("paul"), Actor: actor(), Revision: -1}, invalid("revision"), 400, ""},
		{"unknown subject", "GetSubject", &rationv1.GetSubjectRequest{Subject: named("nobody")}, missing, 404, "nobody"},
		{"unknown to delete", "DeleteSubject", &rationv1.DeleteSubjectRequest{Subject: named("nobody"), Actor: actor()}, missing, 404, ""},
		{"delete without actor", "DeleteSubject", &rationv1.DeleteSubjectRequest{Subject: named("paul")}, invalid("actor.name"), 400, ""},
		{"short key", "AddKey", &rationv1.AddKeyRequest{Subject: named("a"), Actor: actor(), Of: &rationv1.AddKeyRequest_Key{Key: "short"}}, invalid("key"), 400, "openssl"},
		{"no key", "AddKey", &rationv1.AddKeyRequest{Subject: named("a"), Actor: actor()}, invalid("key"), 400, "sha256"},
		{"no hash", "AddKey", &rationv1.AddKeyRequest{Subject: named("a"), Actor: actor(), Of: &rationv1.AddKeyRequest_Sha256{Sha256: "abc"}}, invalid("sha256"), 400, "sha256sum"},
		{"unknown fingerprint", "DeleteKey", &rationv1.DeleteKeyRequest{Subject: named("paul"), Actor: actor(), Fingerprint: "00000000"}, missing, 404, ""},
		{"key of an unknown subject", "DeleteKey", &rationv1.DeleteKeyRequest{Subject: named("nobody"), Actor: actor(), Fingerprint: "00000000"}, missing, 404, "nobody"},
		{"unknown limit", "PutOverride", override("llm.user.token", "5/month"), invalid("override.limit"), 400, `did you mean "llm.user.tokens"?`},
		{"limit of all", "PutOverride", override("llm.company", "5/day"), invalid("override.limit"), 400, "no subject"},
		{"other window", "PutOverride", override("llm.user.tokens", "5/day"), invalid("override.quantity"), 400, "llm.user.tokens"},
		{"no quantity", "PutOverride", override("llm.user.tokens", ""), invalid("override.quantity"), 400, ""},
		{"unknown override", "DeleteOverride", &rationv1.DeleteOverrideRequest{Subject: named("paul"), Actor: actor(), Limit: "llm.user.tokens"}, missing, 404, ""},
		{"no amount", "Grant", grant("llm.user.tokens", ""), invalid("amount"), 400, ""},
		{"money of tokens", "Grant", grant("llm.user.tokens", "$5"), invalid("amount"), 400, "leave out the $"},
		{"tokens of money", "Grant", grant("llm.user.spend", "5"), invalid("amount"), 400, "$5"},
		{"no end", "Grant", grant("llm.user.requests", "5"), invalid("expires_at"), 400, "say when it ends"},
		{"passed", "Grant", past, invalid("expires_at"), 400, "has passed"},
		{"nothing to add to", "Grant", grant("llm.user.extra", "5"), invalid("limit"), 400, "unlimited"},
		{"nothing at all", "Grant", grant("llm.user.tokens", "0"), invalid("grants[1].amount"), 400, ""},
		{"another grant of the id", "Grant", other, said{codes.AlreadyExists, "KEY_REUSED", "", false}, 422, ""},
		{"unknown grant", "Revoke", &rationv1.RevokeRequest{Subject: named("paul"), Actor: actor(), Id: "x"}, missing, 404, ""},
		{"no limit", "AdjustUsage", adjust(""), invalid("limit"), 400, ""},
		{"unknown limit of a correction", "AdjustUsage", adjust("llm.user.spent"), invalid("limit"), 400, "llm.user.spend"},
		{"of everybody", "AdjustUsage", adjust("llm.company"), invalid("limit"), 400, "no subject"},
		{"calls under way", "AdjustUsage", adjust("llm.user.at-once"), invalid("limit"), 400, "settle or release"},
		{"unlimited", "AdjustUsage", adjust("llm.user.extra"), invalid("limit"), 400, "unlimited"},
		{"of nobody", "ResetUsage", &rationv1.ResetUsageRequest{Caller: &rationv1.Caller{Domain: "llm"}, Actor: actor()}, invalid("caller.attributes"), 400, ""},
		{"no actor", "ResetUsage", &rationv1.ResetUsageRequest{Caller: user("paul")}, invalid("actor.name"), 400, ""},
		{"page", "ListSubjects", &rationv1.ListSubjectsRequest{Domain: "llm", PageSize: 1001}, invalid("page_size"), 400, "1000"},
		{"token", "ListSubjects", &rationv1.ListSubjectsRequest{Domain: "llm", PageToken: "?"}, invalid("page_token"), 400, ""},
		{"no list", "ListSubjects", &rationv1.ListSubjectsRequest{}, invalid("domain"), 400, ""},
		{"page of changes", "ListChanges", &rationv1.ListChangesRequest{Domain: "llm", PageSize: -1}, invalid("page_size"), 400, ""},
		{"token of changes", "ListChanges", &rationv1.ListChangesRequest{Domain: "llm", PageToken: "x"}, invalid("page_token"), 400, ""},
		{"no policy", "ValidatePolicy", &rationv1.ValidatePolicyRequest{}, invalid("files"), 400, ""},
		{"large policy", "ValidatePolicy", &rationv1.ValidatePolicyRequest{Files: map[string]string{"p": strings.Repeat("#", 1<<20)}}, invalid("files"), 413, "ration check"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := client(t, o.Addr("admin"))
			err := conn.Invoke(t.Context(), "/ration.v1.AdminService/"+c.method, c.request, &rationv1.GetSubjectResponse{})
			if got := saidBy(t, err); got != c.want {
				t.Errorf("%+v, want %+v: %v", got, c.want, err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			body, _ := protojson.Marshal(c.request)
			if got := post(t, o.Addr("admin"), "ration.v1.AdminService/"+c.method, string(body)); got.status != c.http {
				t.Errorf("as JSON %+v, want %d", got, c.http)
			}
		})
	}
	if got := must[*rationv1.ListSubjectsResponse](t)(o.ListSubjects(t.Context(), &rationv1.ListSubjectsRequest{Domain: "llm"})); len(got.GetSubjects()) != 1 {
		t.Errorf("a request that was refused has left something: %v", got)
	}
}

// Of those who change what they have read at the same time, one succeeds.
func TestRevisions(t *testing.T) { everywhere(t, revisions) }

func revisions(t *testing.T, o *office) {
	first := must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{Subject: named("alice"), Actor: actor()}))
	var wait sync.WaitGroup
	results := make([]error, 20)
	for i := range results {
		wait.Go(func() {
			_, results[i] = o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{
				Subject: named("alice"), Actor: actor(), Revision: first.GetSubject().GetRevision(), Attributes: map[string]string{"n": fmt.Sprint(i)},
			})
		})
	}
	wait.Wait()
	won := 0
	for _, err := range results {
		switch status.Code(err) {
		case codes.OK:
			won++
		case codes.Aborted:
		default:
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d have changed the same revision", won, len(results))
	}
}

// Lists come in pages that go on where the page before has ended.
func TestPages(t *testing.T) { everywhere(t, pages) }

func pages(t *testing.T, o *office) {
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("u%d", i))
		must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{Subject: named(want[i]), Actor: actor()}))
	}
	var listed, changed []string
	for token, n := "", 0; n == 0 || token != ""; n++ {
		page := must[*rationv1.ListSubjectsResponse](t)(o.ListSubjects(t.Context(), &rationv1.ListSubjectsRequest{Domain: "llm", PageSize: 3, PageToken: token}))
		for _, s := range page.GetSubjects() {
			listed = append(listed, s.GetName())
		}
		token = page.GetNextPageToken()
	}
	for token, n := "", 0; n == 0 || token != ""; n++ {
		page := must[*rationv1.ListChangesResponse](t)(o.ListChanges(t.Context(), &rationv1.ListChangesRequest{Domain: "llm", PageSize: 3, PageToken: token}))
		for _, c := range page.GetChanges() {
			changed = append(changed, c.GetName())
		}
		token = page.GetNextPageToken()
	}
	if !slices.Equal(listed, want) {
		t.Errorf("listed %v, want %v", listed, want)
	}
	if slices.Reverse(want); !slices.Equal(changed, want) {
		t.Errorf("changed %v, want the latest first: %v", changed, want)
	}
}

// A change that says a lot is listed with what is short, and with how much is left out.
func TestLongChange(t *testing.T) { everywhere(t, longChange) }

func longChange(t *testing.T, o *office) {
	tier, notes := "pro", make(map[string]string)
	for i := range 20 {
		notes[fmt.Sprint("note", i)] = strings.Repeat("x", 1000)
	}
	must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(),
		&rationv1.PutSubjectRequest{Subject: named("alice"), Actor: actor(), Tier: &tier, Attributes: notes}))
	c := must[*rationv1.ListChangesResponse](t)(o.ListChanges(t.Context(), &rationv1.ListChangesRequest{Domain: "llm"})).GetChanges()[0]
	if c.GetOmitted() == 0 || !strings.Contains(c.GetAfter(), `"tier":"pro"`) {
		t.Errorf("it omits %d, and says %.100s", c.GetOmitted(), c.GetAfter())
	}
}

// A policy is judged as it would be when it is loaded, and is not.
func TestValidatePolicy(t *testing.T) {
	o := administer(t)
	validate := func(text string, strict bool) *rationv1.ValidatePolicyResponse {
		t.Helper()
		return must[*rationv1.ValidatePolicyResponse](t)(o.ValidatePolicy(t.Context(),
			&rationv1.ValidatePolicyRequest{Files: map[string]string{"new.yaml": text}, Strict: strict}))
	}
	if got := validate("domain: x\nlimits: [ { name: all, algorithm: fixed_window, limit: 5/day } ]\n", true); !got.GetValid() ||
		len(got.GetProblems()) != 0 || !strings.Contains(strings.Join(got.GetMeaning(), "\n"), "5 requests per day") {
		t.Errorf("a good one: %v", got)
	}
	if got := validate("domain: x\nlimits: [ { name: all, algorithm: fixed_window, limit: five/day } ]\n", false); got.GetValid() ||
		len(got.GetProblems()) != 1 || !strings.HasPrefix(got.GetProblems()[0], "new.yaml:2:") {
		t.Errorf("a bad one: %v", got)
	}
	const twice = "domain: x\ndomain: x\nlimits: [ { name: all, algorithm: fixed_window, limit: 5/day } ]\n"
	if lax, strict := validate(twice, false), validate(twice, true); !lax.GetValid() || len(lax.GetProblems()) != 1 || strict.GetValid() {
		t.Errorf("one with a warning: %v, and strictly: %v", lax, strict)
	}
	if got := o.stands(t, "tokens"); got != "tokens:0/1000 free" {
		t.Errorf("the policy in force is another one: %s", got)
	}
}

// AdminService is on an address of its own, for this machine alone; and a page in a browser cannot reach it there.
func TestAdminAddress(t *testing.T) {
	o := administer(t)
	if _, err := rationv1.NewAdminServiceClient(client(t, o.Addr("gRPC"))).GetSubject(t.Context(), &rationv1.GetSubjectRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("at the address of all others: %v", err)
	}
	for addr, method := range map[string]string{"HTTP": "AdminService/GetSubject", "admin": "AccountingService/Check"} {
		got := post(t, o.Addr(addr), "ration.v1."+method, "{}")
		if got.status != http.StatusNotFound || !strings.Contains(got.text, "AdminService is served at --admin-addr, all others at --http-addr") {
			t.Errorf("%s at %s: %+v", method, addr, got)
		}
	}
	list := must[reflectionv1.ServerReflection_ServerReflectionInfoClient](t)(
		reflectionv1.NewServerReflectionClient(client(t, o.Addr("admin"))).ServerReflectionInfo(t.Context()))
	if err := list.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	services := must[*reflectionv1.ServerReflectionResponse](t)(list.Recv()).String()
	if !strings.Contains(services, "ration.v1.AdminService") || strings.Contains(services, "AccountingService") {
		t.Errorf("the address serves %s", services)
	}
	for host, want := range map[string]int{"evil.example": 403, "evil.example:8082": 403, "localhost:8082": 400, "127.0.0.1": 400, "[::1]:8082": 400} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+o.Addr("admin")+"/ration.v1.AdminService/GetSubject", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("sent to %s: %d, want %d", host, answer.StatusCode, want)
		}
	}
	_, err := server.New(server.Config{AdminAddr: ":0", Directory: subjects.New(subjects.Options{})},
		engine.New(nil, engine.Options{}), &health.State{}, prometheus.NewRegistry())
	if err == nil || !strings.Contains(err.Error(), "--admin-addr 127.0.0.1:8082") {
		t.Errorf("open to others: %v", err)
	}
}
