package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/cmd/ration/certs/certstest"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// says runs a command in this process, and compares its exit code and what it prints with patterns, a line each.
func says(t *testing.T, code int, args []string, want ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(args, &stdout, &stderr); got != code {
		t.Errorf("ration %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &stdout, &stderr)
	}
	said := stdout.String() + stderr.String()
	lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
	for i, pattern := range want {
		if len(lines) != len(want) || !regexp.MustCompile("^"+pattern+"$").MatchString(lines[i]) {
			t.Errorf("ration %s printed\n%s\nwant\n%s", strings.Join(args, " "), said, strings.Join(want, "\n"))
			break
		}
	}
	return said
}

// TestAccountingCommands is what an operator does by hand, against a server: every line that is printed, every exit code.
func TestAccountingCommands(t *testing.T) {
	p := serve(t, "--policy", "../../examples/accounting.yaml")
	t.Setenv("RATION_SERVER", p.addrs(t).GRPC)
	t.Setenv("RATION_DOMAIN", "llm")
	const (
		head = `LIMIT +METER +CAPACITY +USED +HELD +REMAINING +THIS CALL( +RESETS AT)?( +SAYS)?`
		at   = ` +\d{4}-\d\d-01T00:00:00Z`
		id   = `[0-9a-f]{32}`
	)
	call := strings.Fields("user=bob --model small --input 1000 --output 500")
	says(t, exitOK, append([]string{"reserve", "--dry-run"}, call...),
		`admitted: at most \$0\.0035`, `the longest answer that fits: 1000 tokens`, `tier free`, head,
		`llm\.user\.tokens +tokens +2000 +0 +0 +2000 +1500`, `llm\.user\.spend +cost +\$1\.00 +\$0\.00 +\$0\.00 +\$1\.00 +\$0\.0035`)

	var held rationv1.ReserveResponse
	said := says(t, exitOK, append([]string{"reserve", "--key", "call-1", "-o", "json"}, call...))
	if err := protojson.Unmarshal([]byte(said), &held); err != nil || held.GetReservation().GetId() == "" {
		t.Fatalf("reserve -o json printed %v:\n%s", err, said)
	}
	reservation := held.GetReservation().GetId()
	says(t, exitOK, append([]string{"reserve", "--key", "call-1"}, call...),
		`admitted: .*`, `the longest answer .*`, `tier free`, `reservation `+reservation+`, until .*`, head,
		`llm\.user\.tokens +tokens +2000 +0 +1500 +500 +1500.*`, `llm\.user\.spend .*`)

	// What is left does not do for another one.
	says(t, exitRefused, append([]string{"reserve"}, call...),
		`throttled: Rate limit reached: .*`, `it fits in (4m\d+|5m0)s, or less`, `the longest answer that fits: 0 tokens`, `tier free`, head,
		`llm\.user\.tokens .* refuses`, `llm\.user\.spend .*`)
	says(t, exitRefused, append([]string{"reserve", "--dry-run", "--format=json"}, call...))

	says(t, exitOK, []string{"progress", reservation, "--output", "100"},
		`continue: at most \d+ tokens of output in all`, `reservation open, until .*`, head, `llm\.user\.tokens .*`, `llm\.user\.spend .*`)
	settle := []string{"settle", reservation, "--input", "200", "--cache-read", "750", "--output", "120"}
	says(t, exitOK, settle, `settled, cost \$0\.000875`, `LIMIT +METER +HELD +CHARGED +REMAINING +RESETS AT`,
		`llm\.user\.tokens +tokens +1500 +1070 +930`+at, `llm\.user\.spend +cost +\$0\.0035 +\$0\.000875 +\$0\.999125`+at)
	if said := says(t, exitOK, settle); !strings.Contains(said, "the same was reported before") {
		t.Errorf("settled twice: %s", said)
	}
	says(t, exitFailed, []string{"settle", reservation, "--input", "1"}, `ration: 127.0.0.1:\d+: the reservation was ended before, by .*`)
	// One of which nothing is known is recorded for whom is named.
	unknown := strings.Repeat("ab", 16)
	says(t, exitFailed, []string{"settle", unknown, "--input", "1"}, `ration: 127.0.0.1:\d+: .*name its caller in the report.*`)
	if said := says(t, exitOK, []string{"settle", unknown, "user=carl", "--input", "1"}); !strings.HasPrefix(said, "recorded\n") {
		t.Errorf("settled without a reservation: %s", said)
	}

	said = says(t, exitOK, strings.Fields("reserve user=alice --model small --characters 400 --max-output 100"))
	other := regexp.MustCompile(`reservation (` + id + `)`).FindStringSubmatch(said)
	if other == nil {
		t.Fatalf("no reservation in\n%s", said)
	}
	says(t, exitOK, []string{"release", other[1]}, `settled`, head, `llm\.user\.tokens .*`, `llm\.user\.spend .*`)
	record := strings.Fields("record user=bob --model small --input 15 --output 3 --key job-1 --format csv")
	says(t, exitOK, record, `limit,meter,capacity,used,held,remaining,this_call,resets_at,says`,
		`llm\.user\.tokens,tokens,2000,1088,0,912,18,[-0-9T:]+Z,`, `llm\.user\.spend,cost,\$1\.00,\$0\.000905,\$0\.00,\$0\.999095,\$0\.00003,[-0-9T:]+Z,`)
	says(t, exitOK, record[:len(record)-2], `recorded, cost \$0\.00003 \(the same was reported before: nothing has changed\)`, head, `.*`, `.*`)
}

// TestRemoteTLS: the server is asked over TLS, with a certificate to show where it wants one.
func TestRemoteTLS(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own, shown := authority.Issue(t, "127.0.0.1", "localhost"), authority.Issue(t, "operator")
	p := serve(t, "--policy", "../../examples/accounting.yaml", "--tls-cert", own.Cert, "--tls-key", own.Key, "--tls-client-ca", authority.File)
	reserve := strings.Fields("reserve user=alice --domain llm --model small --dry-run --input 1 --wait 2s --server localhost:" + port(t, p.addrs(t).GRPC))
	trusting := slices.Concat(reserve, []string{"--ca", authority.File})
	byURL := slices.Clone(reserve) // of https://, trusting the system's authorities alone: what fails is the handshake
	byURL[len(byURL)-1] = "https://" + byURL[len(byURL)-1]
	says(t, exitFailed, byURL, `ration: https://localhost:\d+: .*tls: failed to verify certificate.*`)
	for _, c := range []struct {
		args []string
		code int
	}{
		{slices.Concat(trusting, []string{"--cert", shown.Cert, "--cert-key", shown.Key}), exitOK},
		{trusting, exitFailed},
		{reserve, exitFailed},
	} {
		says(t, c.code, c.args)
	}
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestRemoteMisuse: a mistake is never taken for a refusal, and says what to do.
func TestRemoteMisuse(t *testing.T) {
	t.Setenv("RATION_DOMAIN", "") // so that it is as before after the test
	if err := os.Unsetenv("RATION_DOMAIN"); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = taken.Close() // so that nobody answers there
	for _, c := range []struct{ args, want string }{
		{"reserve user=alice", `ration: missing flags: --domain=NAME`},
		{"reserve alice --domain llm", `ration: \[<key=value> \.\.\.\]: "alice" is no KEY=VALUE, as in user=alice`},
		{"reserve user=alice user=bob --domain llm", `ration: .*"user" is "alice" and "bob": give it once`},
		{"reserve user=alice user=bob --domain llm", `ration: .*"user" is "alice" and "bob": give it once`},
		{"settle x user=alice user=bob --domain llm", `ration: .*"user" is "alice" and "bob": give it once`},
		{"reserve --domain llm --characters 5 --output 5", `ration: --characters and --max-output stand for .*: leave .* out`},
		{"usage user=alice --domain llm --by model", `ration: --from is missing: .*`},
		{"usage user=a org=b --domain llm --from 2026-01-31", `ration: with --from, name one subject, .*`},
		{"usage --model m --domain llm --from 2026-01-31", `ration: with --from, leave --model and --tier out.*`},
		{"usage user=alice --domain llm --from monday", `ration: --from: "monday" is no time: write it as .*`},
		{"top --domain llm --format xml", `ration: --format: "xml" is no format: use table, json or csv`},
		{"grant alice llm.user.tokens 5 --domain llm", `ration: missing flags: --reason=TEXT`},
		{"subject list --domain llm --ca /nowhere", `ration: TLS: open /nowhere: no such file or directory`},
		{"release x --wait 100ms --server " + taken.Addr().String(), `ration: 127.0.0.1:\d+: .*(refused|deadline exceeded).*`},
	} {
		says(t, exitFailed, strings.Fields(c.args), c.want)
	}
}

// TestOperating is an operator's afternoon with a real server: a change takes effect at once, and stands in the list.
func TestOperating(t *testing.T) {
	at := serve(t, "--policy", "../../examples/accounting.yaml").addrs(t)
	t.Setenv("RATION_SERVER", at.GRPC)
	t.Setenv("RATION_ADMIN", at.Admin)
	t.Setenv("RATION_DOMAIN", "llm")
	t.Setenv("USER", "carol")
	do := func(code int, command string, want string) {
		t.Helper()
		args := strings.Fields(command)
		if said := says(t, code, args); !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("ration %s printed\n%s\nwant %s", command, said, want)
		}
	}
	do(exitRefused, "reserve --dry-run user=bob --model small --input 100 --output 5000", `impossible: `)
	do(exitOK, "subject set bob --tier pro --reason upgrade", `user=bob +pro`)
	do(exitOK, "reserve --dry-run user=bob --model small --input 100 --output 5000", `tier pro`)
	do(exitOK, "override set bob llm.user.tokens 5_000/month --reason trial", `override llm\.user\.tokens: 5_000/month, until never: trial`)
	do(exitRefused, "reserve --dry-run user=bob --model small --input 100 --output 5000", `At most 4,900 output tokens would fit`)
	do(exitOK, "grant bob llm.user.tokens 200 --id g1 --reason sorry", `g1 +llm\.user\.tokens +200 `)
	do(exitOK, "grant bob llm.user.spend $5 --id g2 --reason sorry", `g2 +llm\.user\.spend +\$5\.00 `)
	do(exitOK, "subject get bob", `grant g2: llm\.user\.spend \+ \$5\.00, until `)
	do(exitOK, "record user=bob --model small --input 1500 --output 200", `recorded, cost \$0\.0025`)
	do(exitOK, "usage user=bob", `llm\.user\.tokens +tokens +5200 +1700 +0 +3500 `)
	do(exitOK, "usage --from 2026-01-01 --by model --every total", `small +1 +0 +1500 +0 +0 +200 +\$0\.0025 +1700`)
	do(exitOK, "top --by tokens", `user=bob +1700`)
	do(exitOK, "explain user=bob --model small --input 1", `llm\.user\.tokens, for user=bob`)
	do(exitOK, "adjust user=bob --limit llm.user.tokens --amount=-500 --reason fix", `llm\.user\.tokens +tokens +5200 +1200 `)
	do(exitOK, "reset user=bob --limit llm.user.tokens --reason fix", `llm\.user\.tokens +tokens +5200 +0 `)
	do(exitOK, "revoke bob g1 --reason oops", `revoked`)
	do(exitOK, "override delete bob llm.user.tokens --reason over", `user=bob +pro`)
	do(exitOK, "changes bob --format csv -n 1", `,carol,,over,delete_override,bob,`)
	do(exitOK, "subject delete bob --reason bye", `deleted`)
	do(exitFailed, "subject get bob", `nothing is known of a subject "bob"`)
}

// standIn is a server that keeps what it was asked, and answers as it is told.
type standIn struct {
	addr   string
	answer proto.Message
	asked  proto.Message
	method string
	token  []string
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	server := grpc.NewServer(grpc.UnaryInterceptor(
		func(ctx context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			s.asked, s.method, s.token = request.(proto.Message), info.FullMethod, md.Get("authorization")
			return s.answer, nil
		}))
	rationv1.RegisterAdminServiceServer(server, rationv1.UnimplementedAdminServiceServer{})
	rationv1.RegisterUsageServiceServer(server, rationv1.UnimplementedUsageServiceServer{})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestReportsAndChanges walks through the commands of UsageService and AdminService: what each asks, and what it prints of
// the answer.
func TestReportsAndChanges(t *testing.T) {
	s := newStandIn(t)
	t.Setenv("RATION_SERVER", s.addr)
	t.Setenv("RATION_ADMIN", s.addr)
	t.Setenv("RATION_TOKEN", "secret")
	t.Setenv("RATION_DOMAIN", "llm")
	t.Setenv("USER", "carol")
	day := timestamppb.New(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	spend := &rationv1.LimitStatus{
		Limit: "llm.user.spend", Meter: rationv1.Meter_METER_COST, Capacity: 20e9, Used: 5e9, Remaining: 15e9, ResetsAt: day,
	}
	alice := &rationv1.Subject{
		Domain: "llm", Key: "user", Name: "alice", Tier: "pro", TimeZone: "Europe/Berlin", BillingDay: 15,
		Attributes: map[string]string{"org": "acme", "desk": "7"},
		Keys:       []*rationv1.Key{{Fingerprint: "01234567", Label: "ci", CreatedAt: day}},
		Overrides:  []*rationv1.Override{{Limit: "llm.user.tokens", Quantity: "unlimited", Reason: "trial"}},
		Grants:     []*rationv1.AllowanceGrant{{Id: "g1", Limit: "llm.user.spend", Amount: 5e9, Meter: rationv1.Meter_METER_COST, ExpiresAt: day, Reason: "sorry"}},
	}
	const (
		actor    = `"actor":{"reason":"ticket 7"}` // the server knows by the token
		who      = `"subject":{"domain":"llm","name":"alice"}`
		subjects = `SUBJECT +TIER +TIME ZONE +BILLING DAY +SUSPENDED +KEYS +OVERRIDES +GRANTS +ATTRIBUTES`
		aliceRow = `user=alice +pro +Europe/Berlin +15 +false +1 +1 +1 +desk=7 org=acme`
		limits   = `LIMIT +METER +CAPACITY +USED +HELD +REMAINING +THIS CALL +RESETS AT`
		spendRow = `llm\.user\.spend +cost +\$20\.00 +\$5\.00 +\$0\.00 +\$15\.00 +\$0\.00 +2026-11-01T00:00:00Z`
	)
	of := []string{
		`key 01234567 ci, since 2026-11-01T00:00:00Z`, `override llm\.user\.tokens: unlimited, until never: trial`,
		`grant g1: llm\.user\.spend \+ \$5\.00, until 2026-11-01T00:00:00Z: sorry`,
	}
	whole := append([]string{subjects, aliceRow}, of...)
	for _, c := range []struct {
		args   string
		method string
		asks   string
		answer proto.Message
		prints []string
	}{
		{
			"usage user=alice --model small", "UsageService/GetUsage",
			`{"caller":{"domain":"llm","attributes":{"user":"alice"},"model":"small"}}`,
			&rationv1.GetUsageResponse{Tier: "pro", Warnings: []string{"You have used 25 %."}, Limits: []*rationv1.LimitForecast{
				{Status: spend, Forecast: "exhausted in 3 d 4 h at this rate"},
			}},
			[]string{
				`tier pro`, `LIMIT +METER +CAPACITY +USED +HELD +REMAINING +RESETS AT +FORECAST`,
				`llm\.user\.spend +cost +\$20\.00 +\$5\.00 +\$0\.00 +\$15\.00 +2026-11-01T00:00:00Z +exhausted in 3 d 4 h at this rate`,
				`You have used 25 %\.`,
			},
		},
		{
			"usage user=alice --from 2026-11-01 --to 2026-11-03T12:00:00Z --by model,tier --every hour --format csv", "UsageService/QueryUsage",
			`{"domain":"llm","subject":"user=alice","from":"2026-11-01T00:00:00Z","to":"2026-11-03T12:00:00Z",` +
				`"resolution":"RESOLUTION_HOUR","groupBy":["model","tier"]}`,
			&rationv1.QueryUsageResponse{
				Rows: []*rationv1.UsageRow{
					{
						Start: day, Group: map[string]string{"model": "small", "tier": "pro"}, Requests: 2,
						Refusals: map[string]int64{"blocked": 1, "rate_limited": 2}, Cost: 1_500_000, TokensPerRequest: 15,
						Usage:   &rationv1.Usage{InputTokens: 10, CacheReadTokens: 5, CacheWriteTokens: 3, OutputTokens: 12},
						Latency: &rationv1.Latency{Count: 2, P50: durationpb.New(1500 * time.Millisecond), P95: durationpb.New(2 * time.Second), P99: durationpb.New(3 * time.Second)},
					},
					{Start: day, Group: map[string]string{"model": "large", "tier": "pro"}},
				},
				Total: &rationv1.UsageRow{Requests: 2},
			},
			[]string{
				`start,model,tier,requests,refusals,rate_limited,quota_exhausted,request_too_large,blocked,input,cache_read,cache_write,output,cost,tokens_per_request,p50,p95,p99`,
				`2026-11-01T00:00:00Z,small,pro,2,3,2,,,1,10,5,3,12,\$0\.0015,15,1\.5s,2s,3s`,
				`2026-11-01T00:00:00Z,large,pro,0,0,,,,,0,0,0,0,\$0\.00,0,,,`, `total,,,2,0,,,,,0,0,0,0,\$0\.00,0,,,`,
			},
		},
		{
			"top --by tokens --month -n 3 --at 2026-11-02", "UsageService/TopUsage",
			`{"domain":"llm","by":"RANKING_TOKENS","at":"2026-11-02T00:00:00Z","month":true,"limit":3}`,
			&rationv1.TopUsageResponse{Start: day, Subjects: []*rationv1.TopSubject{{Subject: "user=alice", Amount: 7}}},
			[]string{`since 2026-11-01T00:00:00Z`, `SUBJECT +TOKENS`, `user=alice +7`},
		},
		{
			"top", "UsageService/TopUsage", `{"domain":"llm","by":"RANKING_COST","limit":10}`,
			&rationv1.TopUsageResponse{Start: day, Subjects: []*rationv1.TopSubject{{Subject: "user=alice", Amount: 7e9}}},
			[]string{`since .*`, `SUBJECT +COST`, `user=alice +\$7\.00`},
		},
		{
			"explain user=alice --model small --input 5 --output 7", "UsageService/Explain",
			`{"caller":{"domain":"llm","attributes":{"user":"alice"},"model":"small"},"estimate":{"usage":{"inputTokens":"5","outputTokens":"7"}}}`,
			&rationv1.ExplainResponse{Text: []string{"two limits apply", "llm.user.spend binds"}, Reasons: []*rationv1.Reason{{Status: spend}}},
			[]string{`two limits apply`, `llm\.user\.spend binds`},
		},
		{
			"explain user=alice -o csv", "UsageService/Explain", `{"caller":{"domain":"llm","attributes":{"user":"alice"}},"estimate":{"usage":{}}}`,
			&rationv1.ExplainResponse{Reasons: []*rationv1.Reason{{Status: spend, Because: []string{"user=alice"}, Place: "p.yaml:3:5", Meaning: "what it means, by tier\n  free: 5"}}},
			[]string{`limit,remaining,says,because,place,meaning`, `llm\.user\.spend,\$15\.00,,user=alice,p\.yaml:3:5,"what it means, by tier; free: 5"`},
		},
		{"subject get alice", "AdminService/GetSubject", `{` + who + `}`, &rationv1.GetSubjectResponse{Subject: alice}, whole},
		{
			"subject set user=alice --tier pro --time-zone= --billing-day 15 --no-suspended --attribute org=acme --revision 4 --reason ticket_7",
			"AdminService/PutSubject",
			`{"subject":{"domain":"llm","key":"user","name":"alice"},"tier":"pro","timeZone":"","billingDay":15,"suspended":false,` +
				`"attributes":{"org":"acme"},"revision":"4",` + actor + `}`,
			&rationv1.PutSubjectResponse{Subject: alice}, whole,
		},
		{
			"subject set alice --suspended --as dave --reason ticket_7", "AdminService/PutSubject",
			`{` + who + `,"suspended":true,"actor":{"name":"dave","reason":"ticket 7"}}`, &rationv1.PutSubjectResponse{Subject: alice}, whole,
		},
		{
			"subject list -n 1 --page p1", "AdminService/ListSubjects", `{"domain":"llm","pageSize":1,"pageToken":"p1"}`,
			&rationv1.ListSubjectsResponse{Subjects: []*rationv1.Subject{alice}, NextPageToken: "p2"},
			[]string{subjects, aliceRow, `there are more: --page p2`},
		},
		{"subject delete alice --reason ticket_7", "AdminService/DeleteSubject", `{` + who + `,` + actor + `}`, &rationv1.DeleteSubjectResponse{}, []string{`deleted`}},
		{
			"key add alice --sha256 ab --label ci --reason ticket_7", "AdminService/AddKey", `{` + who + `,"sha256":"ab","label":"ci",` + actor + `}`,
			&rationv1.AddKeyResponse{Key: alice.GetKeys()[0]}, []string{`FINGERPRINT +LABEL +CREATED AT`, `01234567 +ci +2026-11-01T00:00:00Z`},
		},
		{"key delete alice 01234567 --reason ticket_7", "AdminService/DeleteKey", `{` + who + `,"fingerprint":"01234567",` + actor + `}`, &rationv1.DeleteKeyResponse{}, []string{`deleted`}},
		{
			"override set alice llm.user.spend $50/month --expires 2026-12-01 --reason ticket_7", "AdminService/PutOverride",
			`{` + who + `,"override":{"limit":"llm.user.spend","quantity":"$50/month","expiresAt":"2026-12-01T00:00:00Z"},` + actor + `}`,
			&rationv1.PutOverrideResponse{Subject: alice}, whole,
		},
		{
			"override delete alice llm.user.spend --reason ticket_7", "AdminService/DeleteOverride",
			`{` + who + `,"limit":"llm.user.spend",` + actor + `}`, &rationv1.DeleteOverrideResponse{Subject: alice}, whole,
		},
		{
			"grant alice llm.user.spend $5 --id g1 --reason ticket_7", "AdminService/Grant",
			`{` + who + `,"limit":"llm.user.spend","amount":"$5","id":"g1",` + actor + `}`, &rationv1.GrantResponse{Grant: alice.GetGrants()[0]},
			[]string{`GRANT +LIMIT +AMOUNT +EXPIRES AT +REASON`, `g1 +llm\.user\.spend +\$5\.00 +2026-11-01T00:00:00Z +sorry`},
		},
		{"revoke alice g1 --reason ticket_7", "AdminService/Revoke", `{` + who + `,"id":"g1",` + actor + `}`, &rationv1.RevokeResponse{}, []string{`revoked`}},
		{
			"adjust user=alice --limit llm.user.spend --amount=-$5 --reason ticket_7", "AdminService/AdjustUsage",
			`{"caller":{"domain":"llm","attributes":{"user":"alice"}},"limit":"llm.user.spend","quantity":"-$5",` + actor + `}`,
			&rationv1.AdjustUsageResponse{Status: spend}, []string{limits, spendRow},
		},
		{
			"reset user=alice --reason ticket_7", "AdminService/ResetUsage", `{"caller":{"domain":"llm","attributes":{"user":"alice"}},` + actor + `}`,
			&rationv1.ResetUsageResponse{Limits: []*rationv1.LimitStatus{spend}}, []string{limits, spendRow},
		},
		{
			"changes alice", "AdminService/ListChanges", `{"domain":"llm","name":"alice","pageSize":100}`,
			&rationv1.ListChangesResponse{Changes: []*rationv1.Change{{
				Time: day, Actor: &rationv1.Actor{Name: "carol", Reason: "ticket 7"}, Credential: "token ops", Action: "put_subject", Name: "alice", Before: "{}", After: `{"tier":"pro"}`,
			}}},
			[]string{
				`TIME +WHO +KNOWN BY +WHY +ACTION +SUBJECT +BEFORE +AFTER`,
				`2026-11-01T00:00:00Z +carol +token ops +ticket 7 +put_subject +alice +{} +{"tier":"pro"}`,
			},
		},
	} {
		s.asked, s.answer = nil, c.answer
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "ticket_7", "ticket 7")
		}
		says(t, exitOK, args, c.prints...)
		if s.asked == nil {
			t.Errorf("ration %s asks nothing", c.args)
			continue
		}
		want := s.asked.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal([]byte(c.asks), want); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(s.asked, want) || s.method != "/ration.v1."+c.method {
			t.Errorf("ration %s asks %s\n%v\nwant %s\n%v", c.args, s.method, s.asked, c.method, want)
		}
		if len(s.token) != 1 || s.token[0] != "Bearer secret" {
			t.Errorf("ration %s shows %q", c.args, s.token)
		}
	}
}

// TestTablesCannotBeForged: whoever makes a change chooses its name and its reason, and not what the table says of it.
func TestTablesCannotBeForged(t *testing.T) {
	s := newStandIn(t)
	s.answer = &rationv1.ListChangesResponse{Changes: []*rationv1.Change{{
		Actor: &rationv1.Actor{Name: "ann\ttoken root", Reason: "r\n2026  bob\u202e"}, Credential: "token ops", Action: "grant", Name: "a\x1b[2K",
	}}}
	says(t, exitOK, []string{"changes", "--domain", "llm", "--admin", s.addr},
		`WHO +KNOWN BY +WHY +ACTION +SUBJECT`, `ann\x{fffd}token root  token ops  r\x{fffd}2026  bob\x{fffd}  grant   a\x{fffd}\[2K`)
	s.answer = &rationv1.GetSubjectResponse{Subject: &rationv1.Subject{
		Key: "user", Name: "bob", Grants: []*rationv1.AllowanceGrant{{Id: "g", Limit: "l", Reason: "x\ngrant h: l + 5"}},
	}}
	says(t, exitOK, []string{"subject", "get", "bob", "--domain", "llm", "--admin", s.addr},
		`SUBJECT.*`, `user=bob.*`, `grant g: l \+ 0, until never: x\x{fffd}grant h: l \+ 5`)
}

// TestAddKeyReadsTheKey: the key comes by the standard input, and only its hash leaves the machine.
func TestAddKeyReadsTheKey(t *testing.T) {
	s := newStandIn(t)
	s.answer = &rationv1.AddKeyResponse{Key: &rationv1.Key{Fingerprint: "01234567"}}
	for key, want := range map[string]string{
		"sk-0123456789abcdef\n":   "221df437bc4f8c4d9718bd7a9ec4c1021c72fd69dfb2a5f568ecf4607c824bee",
		"short\n":                 "",
		strings.Repeat("x", 1025): "", // what no server takes from a caller
	} {
		s.asked = nil
		add := exec.Command(binary, "key", "add", "alice", "--domain", "llm", "--reason", "new", "--as", "me", "--admin", s.addr)
		add.Stdin = strings.NewReader(key)
		out, err := add.CombinedOutput()
		request, _ := s.asked.(*rationv1.AddKeyRequest)
		if got := request.GetSha256(); got != want || request.GetKey() != "" || (err == nil) != (want != "") {
			t.Errorf("%q: %v, asked %v, want the hash %q\n%s", key, err, s.asked, want, out)
		}
	}
}

// TestJSON is what the server has said, in protobuf's own form.
func TestJSON(t *testing.T) {
	s := newStandIn(t)
	s.answer = &rationv1.TopUsageResponse{Subjects: []*rationv1.TopSubject{{Subject: "user=alice", Amount: 7}}}
	said := says(t, exitOK, []string{"top", "--domain", "llm", "--format", "json", "--server", s.addr})
	var got struct {
		Subjects []struct{ Subject, Amount string }
	}
	if err := json.Unmarshal([]byte(said), &got); err != nil || len(got.Subjects) != 1 || got.Subjects[0].Amount != "7" {
		t.Errorf("%v in\n%s", err, said)
	}
}
