package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/client"
	"github.com/rationhq/ration/cmd/ration/certs/certstest"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/access"
)

// secured is a ration that speaks TLS on every address that has callers, and asks who they are.
type secured struct {
	*process
	at            line
	authority     *certstest.Authority
	own           certstest.Pair
	file          string // of --access
	token, digits string // of robot, who may read
}

// named are the callers of a secured ration.
const named = `
certificates:
  - { name: app, uri: "spiffe://example/app", may: account, domains: llm, subjects: user=alice }
  - { name: looks, dns: looks.example, may: read }
  - { name: ops, common_name: Operations, may: admin }
tokens:
  - { name: robot, may: read, sha256: `

func serveSecured(t *testing.T, flags ...string) *secured {
	t.Helper()
	s := &secured{authority: certstest.NewAuthority(t), file: filepath.Join(t.TempDir(), "access.yaml")}
	s.own = s.authority.Issue(t, "ration", "localhost")
	s.token, s.digits = access.NewToken()
	writeTokens(t, s.file, named+s.digits+" }\n")
	s.process = serve(t, append([]string{
		"--policy", "../../examples/accounting.yaml", "--tls-cert", s.own.Cert, "--tls-key", s.own.Key, "--tls-client-ca", s.authority.File,
		"--http-tls", "--admin-tls", "--access", s.file,
	}, flags...)...)
	s.at = s.addrs(t)
	return s
}

// shows is what a caller brings.
type shows struct {
	cert    *certstest.Pair
	token   string
	headers map[string]string
}

// refusedByTLS is the outcome where no call gets through.
const refusedByTLS = "turned away"

// ask calls SERVICE/METHOD over gRPC, HTTP/2 and HTTP/1.1, of which each has a connection of its own. It returns OK, the
// reason of the error, or refusedByTLS, and fails the test where the three do not say the same.
func (s *secured) ask(t *testing.T, who shows, method string) string {
	t.Helper()
	over, web := s.at.GRPC, s.at.HTTP
	if strings.HasPrefix(method, "AdminService") {
		over, web = s.at.Admin, s.at.Admin
	}
	const body = `{"caller":{"domain":"llm","attributes":{"user":"alice"}}}`
	outcomes := []string{s.askGRPC(t, over, who, method)}
	for _, protocol := range []string{"h2", "http/1.1"} {
		outcomes = append(outcomes, s.askHTTP(t, web, protocol, who, method, body))
	}
	if outcomes[1] != outcomes[0] || outcomes[2] != outcomes[0] {
		t.Errorf("%s: over gRPC %s, over HTTP/2 %s, over HTTP/1.1 %s", method, outcomes[0], outcomes[1], outcomes[2])
	}
	return outcomes[0]
}

func (s *secured) askGRPC(t *testing.T, addr string, who shows, method string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, value := range who.headers {
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
	}
	if who.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+who.token)
	}
	conn := connect(t, addr, credentials.NewTLS(clientTLS(t, s.authority, who.cert)))
	var request, answer any = &rationv1.CheckRequest{
		Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}},
	}, &rationv1.CheckResponse{}
	if strings.HasPrefix(method, "AdminService") {
		request, answer = &rationv1.ListSubjectsRequest{Domain: "llm"}, &rationv1.ListSubjectsResponse{}
	}
	err := conn.Invoke(ctx, "/ration.v1."+method, request, answer)
	if err == nil {
		return "OK"
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	if status.Code(err) == codes.Unavailable {
		return refusedByTLS
	}
	return err.Error()
}

func (s *secured) web(t *testing.T, protocol string, cert *certstest.Pair) *http.Client {
	t.Helper()
	config := clientTLS(t, s.authority, cert)
	config.NextProtos = []string{protocol}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: protocol == "h2"}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// probe asks for the health, and returns whether the server has closed the connection then.
func (s *secured) probe(t *testing.T, web *http.Client) (closed bool, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.at.HTTP+"/healthcheck", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := web.Do(r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && string(text) != "OK" {
		err = fmt.Errorf("%s %q", answer.Status, text)
	}
	return answer.Close, err
}

func (s *secured) askHTTP(t *testing.T, addr, protocol string, who shows, method, body string) string {
	t.Helper()
	if strings.HasPrefix(method, "AdminService") {
		body = `{"domain":"llm"}`
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/ration.v1."+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for name, value := range who.headers {
		r.Header.Set(name, value)
	}
	if who.token != "" {
		r.Header.Set("Authorization", "Bearer "+who.token)
	}
	answer, err := s.web(t, protocol, who.cert).Do(r)
	if err != nil {
		return refusedByTLS
	}
	defer answer.Body.Close()
	if (answer.ProtoMajor == 2) != (protocol == "h2") || answer.TLS.NegotiatedProtocol != protocol {
		t.Errorf("%s is spoken, %q is agreed on, want %s", answer.Proto, answer.TLS.NegotiatedProtocol, protocol)
	}
	if answer.StatusCode == http.StatusOK {
		return "OK"
	}
	var said struct{ Details []struct{ Reason string } }
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil || len(said.Details) == 0 {
		return answer.Status
	}
	return said.Details[0].Reason
}

// TestCallersByCertificate walks through who may call what, over real connections, where clients must show a certificate.
func TestCallersByCertificate(t *testing.T) {
	s := serveSecured(t)
	issue := func(names ...string) *certstest.Pair {
		p := s.authority.Issue(t, names...)
		return &p
	}
	app, looks, ops := issue("spiffe://example/app"), issue("looks.example"), issue("CN=Operations")
	stranger := issue("stranger.example", "CN=app")
	other := certstest.NewAuthority(t)
	foreign, expired := other.Issue(t, "spiffe://example/app"), s.authority.IssueUntil(t, time.Now().Add(-time.Minute), "spiffe://example/app")
	smuggled := map[string]string{
		"X-Forwarded-Client-Cert": "By=spiffe://example/ration;Hash=00;Subject=\"CN=Operations\";URI=spiffe://example/app",
		"X-SSL-Client-Verify":     "SUCCESS", "X-SSL-Client-S-DN": "CN=Operations", "Client-Cert": ":MIIB:", "Forwarded": "for=127.0.0.1",
		"X-Forwarded-For": "127.0.0.1", "Grpc-Metadata-Authorization": "Bearer " + s.token, "X-Ration-Caller": "certificate ops",
	}
	const check, reserve, list = "AccountingService/Check", "AccountingService/Reserve", "AdminService/ListSubjects"
	for _, c := range []struct {
		name   string
		who    shows
		method string
		want   string
	}{
		{"an app asks", shows{cert: app}, check, "OK"},
		{"an app spends", shows{cert: app}, reserve, "OK"},
		{"an app administers", shows{cert: app}, list, "NOT_PERMITTED"},
		{"who reads asks", shows{cert: looks}, check, "OK"},
		{"who reads spends", shows{cert: looks}, reserve, "NOT_PERMITTED"},
		{"an operator administers", shows{cert: ops}, list, "OK"},
		{"an operator spends", shows{cert: ops}, reserve, "NOT_PERMITTED"},
		{"a stranger", shows{cert: stranger}, check, "NOT_AUTHENTICATED"},
		{"a stranger administers", shows{cert: stranger}, list, "NOT_AUTHENTICATED"},
		{"a stranger with a token", shows{cert: stranger, token: s.token}, check, "OK"},
		{"an app with the token of another", shows{cert: app, token: s.token}, reserve, "NOT_PERMITTED"},
		{"an operator with the token of another", shows{cert: ops, token: s.token}, list, "NOT_PERMITTED"},
		{"an app with a wrong token", shows{cert: app, token: "ration_x"}, check, "NOT_AUTHENTICATED"},
		{"a stranger with headers of others", shows{cert: stranger, headers: smuggled}, check, "NOT_AUTHENTICATED"},
		{"a stranger administers with headers of others", shows{cert: stranger, headers: smuggled}, list, "NOT_AUTHENTICATED"},
		{"an app with headers of others", shows{cert: app, headers: smuggled}, list, "NOT_PERMITTED"},
		{"another authority", shows{cert: &foreign}, check, refusedByTLS},
		{"another authority administers", shows{cert: &foreign}, list, refusedByTLS},
		{"expired", shows{cert: &expired}, check, refusedByTLS},
		{"nothing", shows{}, check, refusedByTLS},
		{"a token alone", shows{token: s.token}, check, refusedByTLS},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := s.ask(t, c.who, c.method); got != c.want {
				t.Errorf("%s: %s, want %s", c.method, got, c.want)
			}
		})
	}
	t.Run("whose names are seen", func(t *testing.T) {
		conn := connect(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, stranger)))
		_, err := rationv1.NewAccountingServiceClient(conn).Check(t.Context(), &rationv1.CheckRequest{})
		const want = `the certificate is verified, but not known (dns "stranger.example", common_name "app"): whoever runs ration enters one of its names below`
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	})
	t.Run("for whom", func(t *testing.T) {
		for body, want := range map[string]string{
			`{"caller":{"domain":"llm","attributes":{"user":"bob"}}}`:     "OUT_OF_SCOPE",
			`{"caller":{"domain":"other","attributes":{"user":"alice"}}}`: "OUT_OF_SCOPE",
		} {
			if got := s.askHTTP(t, s.at.HTTP, "h2", shows{cert: app}, check, body); got != want {
				t.Errorf("%s: %s, want %s", body, got, want)
			}
		}
	})
	t.Run("AdminService at the other addresses", func(t *testing.T) {
		conn := connect(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, ops)))
		_, err := rationv1.NewAdminServiceClient(conn).ListSubjects(t.Context(), &rationv1.ListSubjectsRequest{Domain: "llm"})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("over gRPC: %v", err)
		}
		if got := s.askHTTP(t, s.at.HTTP, "h2", shows{cert: ops}, list, ""); got != "UNKNOWN_METHOD" {
			t.Errorf("over HTTP: %s", got)
		}
	})
	t.Run("Envoy, health and reflection", func(t *testing.T) {
		if err := askOver(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, stranger))); err != nil {
			t.Errorf("Envoy: %v", err)
		}
		conn := connect(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, stranger)))
		if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Errorf("health: %v", err)
		}
		stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err == nil {
			err = stream.Send(&reflectionv1.ServerReflectionRequest{
				MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"},
			})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Errorf("reflection: %v", err)
		}
	})
	t.Run("a stream", func(t *testing.T) {
		conn := connect(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, stranger)))
		stream, err := rationv1.NewUsageServiceClient(conn).WatchEvents(t.Context(), &rationv1.WatchEventsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("by a stranger: %v", err)
		}
	})
	s.stop(t)
}

// TestCertificatesAreOptional: with --tls-client-optional a token does without a certificate, and a certificate that is
// shown has to be good all the same.
func TestCertificatesAreOptional(t *testing.T) {
	s := serveSecured(t, "--tls-client-optional")
	app, foreign := s.authority.Issue(t, "spiffe://example/app"), certstest.NewAuthority(t).Issue(t, "spiffe://example/app")
	expired := s.authority.IssueUntil(t, time.Now().Add(-time.Minute), "spiffe://example/app")
	for _, c := range []struct {
		name string
		who  shows
		want string
	}{
		{"a certificate", shows{cert: &app}, "OK"},
		{"a token", shows{token: s.token}, "OK"},
		{"nothing", shows{}, "NOT_AUTHENTICATED"},
		{"headers alone", shows{headers: map[string]string{"X-Forwarded-Client-Cert": "URI=spiffe://example/app"}}, "NOT_AUTHENTICATED"},
	} {
		if got := s.ask(t, c.who, "AccountingService/Check"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// Clients of Go do not show a certificate of which the server's authorities know nothing, unless they are made to.
	for name, pair := range map[string]certstest.Pair{"another authority": foreign, "expired": expired} {
		config := clientTLS(t, s.authority, nil)
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		for _, addr := range []string{s.at.GRPC, s.at.HTTP, s.at.Admin} {
			dialer := tls.Dialer{Config: config}
			conn, err := dialer.DialContext(t.Context(), "tcp", addr)
			if err == nil {
				_, err = conn.Read(make([]byte, 64)) // in TLS 1.3 a client learns only here that it was turned away
				_ = conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("%s at %s: %v, want to be turned away", name, addr, err)
			}
		}
	}
	if _, err := s.probe(t, s.web(t, "http/1.1", nil)); err != nil {
		t.Errorf("a probe without a certificate: %v", err)
	}
	s.stop(t)
}

// TestCertificatesOfCallersAreReadAgain: a caller that is taken out is refused with its next call, over the same
// connection, and new certificates of the server are used at every address.
func TestCertificatesOfCallersAreReadAgain(t *testing.T) {
	s := serveSecured(t)
	pair := s.authority.Issue(t, "spiffe://example/app")
	conn := connect(t, s.at.GRPC, credentials.NewTLS(clientTLS(t, s.authority, &pair)))
	check := func() error {
		_, err := rationv1.NewAccountingServiceClient(conn).Check(t.Context(), &rationv1.CheckRequest{
			Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}},
		})
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	writeTokens(t, s.file, "certificates: [ { name: app, uri: 'spiffe://example/new', may: account } ]\n")
	eventually(t, "the certificate is refused", func() error {
		if err := check(); status.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("it answers %w", err)
		}
		return nil
	})
	writeTokens(t, s.file, "certificates: [ { name: app, uri: 'spiffe://example/app', may: accounts } ]\n")
	bad := s.waitForLog(t, "the new file of --access is not used", 1)
	if want := s.file + `:1:64: certificates[0] ("app"): may "accounts" is unknown: use account, read or admin`; bad[0].Problem != want {
		t.Errorf("the log says %q, want %q", bad[0].Problem, want)
	}

	second := certstest.NewAuthority(t)
	second.IssueTo(t, s.own, "ration", "localhost")
	for _, addr := range []string{s.at.GRPC, s.at.HTTP, s.at.Admin} {
		eventually(t, "the new certificate is used at "+addr, func() error {
			dialer := tls.Dialer{Config: clientTLS(t, second, &pair)}
			conn, err := dialer.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	s.stop(t)
}

// TestCertificatesExpireOnOpenConnections: who goes on over a connection whose certificate has expired is answered, and
// asked to connect again, with one that has not.
func TestCertificatesExpireOnOpenConnections(t *testing.T) {
	s := serveSecured(t)
	// Certificates count in whole seconds.
	soon := s.authority.IssueUntil(t, time.Now().Add(2*time.Second), "spiffe://example/app")
	web := s.web(t, "http/1.1", &soon)
	eventually(t, "the connection is closed", func() error {
		closed, err := s.probe(t, web)
		if err != nil {
			t.Fatalf("a call without an answer: %v", err)
		}
		if !closed {
			return errors.New("it stays open")
		}
		return nil
	})
	if _, err := s.probe(t, web); err == nil {
		t.Error("a new connection with the old certificate is answered")
	}
	s.stop(t)
}

// TestCertificatesThatCannotWork: what would never let anybody in ends the start, with a cure.
func TestCertificatesThatCannotWork(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "ration")
	file := filepath.Join(t.TempDir(), "access.yaml")
	writeTokens(t, file, "certificates: [ { name: app, dns: app.example, may: account } ]\n")
	withTLS := []string{"--tls-cert", own.Cert, "--tls-key", own.Key}
	for _, c := range []struct {
		flags []string
		code  int
		want  string
	}{
		{[]string{"--access", file}, exitFailed, file + ": it names certificates, but none are asked for: set --tls-client-ca"},
		{append(withTLS, "--access", file), exitFailed, "set --tls-client-ca"},
		{append(withTLS, "--tls-client-optional"), exitUsage, "--tls-client-optional is set, but --tls-client-ca is not"},
		{[]string{"--http-tls"}, exitUsage, "--http-tls is set, but --tls-cert is not"},
		{[]string{"--admin-tls"}, exitUsage, "--admin-tls is set, but --tls-cert is not"},
		// A certificate that nobody can be known by does not open the admin address to others.
		{append(withTLS, "--tls-client-ca", authority.File, "--admin-tls", "--admin-addr", ":0"), exitFailed, "nobody could say who they are"},
	} {
		flags := append([]string{"serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "", "--metrics-addr", "", "--debug-addr", "", "--admin-addr", ""}, c.flags...)
		if code, _, stderr := runs(t, nil, flags...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %s; want %d and %q", c.flags, code, stderr, c.code, c.want)
		}
	}
}

// TestTLSWarnsOfNothing: where every address of callers speaks TLS, no token can be read on its way.
func TestTLSWarnsOfNothing(t *testing.T) {
	s := serveSecured(t, "--grpc-addr", ":0", "--http-addr", ":0", "--admin-addr", ":0")
	if got := s.logged("in plaintext"); len(got) > 0 {
		t.Errorf("it warns: %v", got)
	}
	s.stop(t)
}

// TestWhoHasChanged: the list of changes tells by what a caller was known, whatever it calls itself.
func TestWhoHasChanged(t *testing.T) {
	s := serveSecured(t, "--tls-client-optional")
	token, digits := access.NewToken()
	writeTokens(t, s.file, strings.Replace(named, "name: robot, may: read", "name: robot, may: admin", 1)+digits+" }\n")
	s.waitForLog(t, "a new file of --access is in force", 1)
	ops := s.authority.Issue(t, "CN=Operations")
	_, port, _ := strings.Cut(s.at.Admin, ":")
	t.Setenv("RATION_ADMIN", "localhost:"+port)
	t.Setenv("RATION_CA", s.authority.File)
	t.Setenv("RATION_DOMAIN", "llm")
	t.Setenv("USER", "carol")
	byCert, byToken := []string{"--cert", ops.Cert, "--cert-key", ops.Key}, []string{"--token", token}
	set := strings.Fields("subject set bob --reason test --tier")
	says(t, exitOK, slices.Concat(set, []string{"pro"}, byCert))
	says(t, exitOK, slices.Concat(set, []string{"free", "--as", "dave"}, byCert))
	says(t, exitOK, slices.Concat(set, []string{"pro"}, byToken))
	says(t, exitOK, slices.Concat(set, []string{"free", "--as", "certificate ops"}, byToken))
	says(t, exitFailed, slices.Concat(set, []string{"pro"}), `ration: localhost:\d+: the call came without a token, and without a certificate that was verified: .*`)
	says(t, exitOK, slices.Concat(strings.Fields("changes bob --format csv"), byCert),
		`time,who,known_by,why,action,subject,before,after,omitted`,
		`[^,]*,certificate ops,token robot,test,put_subject,bob,.*`, `[^,]*,robot,token robot,test,put_subject,bob,.*`,
		`[^,]*,dave,certificate ops,test,put_subject,bob,.*`, `[^,]*,ops,certificate ops,test,put_subject,bob,.*`)
	s.stop(t)
}

// TestTheOperatorIsKnown: where nobody is asked who calls, a change is by the user of the machine, with USER or without.
func TestTheOperatorIsKnown(t *testing.T) {
	at := serve(t, "--policy", "../../examples/accounting.yaml").addrs(t)
	for user, want := range map[string]string{"carol": "carol", "": "[^,]+"} {
		t.Setenv("USER", user)
		says(t, exitOK, strings.Fields("subject set bob --domain llm --reason test --time-zone Europe/Berlin --admin "+at.Admin))
		says(t, exitOK, strings.Fields("changes bob --domain llm --format csv -n 1 --admin "+at.Admin),
			`time,who,known_by,.*`, `[^,]*,`+want+`,,test,put_subject,bob,.*`)
		says(t, exitOK, strings.Fields("subject delete bob --domain llm --reason test --admin "+at.Admin))
	}
	says(t, exitFailed, strings.Fields("subject set bob --domain llm --reason test --tier pro --token unasked --admin "+at.Admin),
		`ration: 127.0.0.1:\d+: actor.name: it is empty, and no token or certificate is asked for that would tell: say who makes the change`)
}

// TestClientShowsACertificate: the client of Go spends by one.
func TestClientShowsACertificate(t *testing.T) {
	s := serveSecured(t)
	pair, stranger := s.authority.Issue(t, "spiffe://example/app"), s.authority.Issue(t, "stranger.example")
	for who, want := range map[*certstest.Pair]codes.Code{&pair: codes.OK, &stranger: codes.Unauthenticated} {
		c, err := client.New(s.at.GRPC, client.Options{TLS: clientTLS(t, s.authority, who)})
		if err != nil {
			t.Fatal(err)
		}
		lease, err := c.Reserve(t.Context(), client.Call{
			Caller:   client.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}, Model: "small"},
			Estimate: client.Usage{Input: 10, Output: 10},
		})
		if status.Code(err) != want {
			t.Errorf("got %v, want %v", err, want)
		}
		if err == nil {
			_, err = lease.Settle(t.Context(), client.Usage{Input: 10, Output: 5})
			if err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	s.stop(t)
}
