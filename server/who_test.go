package server_test

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/access"
)

// loopback is where an address with all interfaces can be reached from here.
func loopback(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + port
}

func client(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// On an address that others reach AccountingService answers nobody, and says what would help; what tells nothing of
// anybody's usage answers as ever.
func TestOpenAddress(t *testing.T) {
	for _, c := range []struct {
		name, grpc, http string
		config           server.Config
		grpcCode         codes.Code
		httpStatus       int
	}{
		{name: "loopback", grpc: "127.0.0.1:0", http: "127.0.0.1:0", grpcCode: codes.OK, httpStatus: 200},
		{name: "all interfaces", grpc: ":0", http: "0.0.0.0:0", grpcCode: codes.Unauthenticated, httpStatus: 401},
		{name: "each by its own address", grpc: "127.0.0.1:0", http: ":0", grpcCode: codes.OK, httpStatus: 401},
		{name: "and the other way", grpc: "[::]:0", http: "127.0.0.1:0", grpcCode: codes.Unauthenticated, httpStatus: 200},
		{name: "let in", grpc: ":0", http: ":0", config: server.Config{InsecureAPI: true}, grpcCode: codes.OK, httpStatus: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.GRPCAddr, c.config.HTTPAddr = c.grpc, c.http
			s := serve(t, accounts, nil, c.config)
			conn := client(t, loopback(t, s.Addr("gRPC")))
			_, err := rationv1.NewAccountingServiceClient(conn).Check(t.Context(), &rationv1.CheckRequest{Caller: alice()})
			if status.Code(err) != c.grpcCode || s.Restricted("gRPC") != (err != nil) {
				t.Errorf("over gRPC: %v, restricted %t; want %v", err, s.Restricted("gRPC"), c.grpcCode)
			}
			if err != nil {
				if got := saidBy(t, err); got.reason != "NOT_AUTHENTICATED" || !strings.Contains(err.Error(), "--grpc-addr localhost:PORT") ||
					!strings.Contains(err.Error(), "--insecure-api") {
					t.Errorf("refused with %+v: %v", got, err)
				}
			}
			if _, err := rationv1.NewStatusServiceClient(conn).GetHealth(t.Context(), &rationv1.GetHealthRequest{}); err != nil {
				t.Errorf("the status over gRPC: %v", err)
			}
			at := loopback(t, s.Addr("HTTP"))
			got := post(t, at, accounting+"Check", `{"caller": {"domain": "llm"}}`)
			if got.status != c.httpStatus || s.Restricted("HTTP") != (got.status == http.StatusUnauthorized) {
				t.Errorf("over HTTP: %+v, want %d", got, c.httpStatus)
			}
			if got.status == http.StatusUnauthorized &&
				(!strings.Contains(got.text, "NOT_AUTHENTICATED") || !strings.Contains(got.text, "--http-addr localhost:PORT")) {
				t.Errorf("refused with %s", got.text)
			}
			if got := post(t, at, "ration.v1.StatusService/GetHealth", ""); got.status != http.StatusOK || !strings.Contains(got.text, `"components":[`) {
				t.Errorf("the status over HTTP: %+v", got)
			}
		})
	}
}

// What takes whoever is on this machine takes no page in a browser, whose name has been made to lead to it; where callers
// are asked who they are, or all are let in, any name will do.
func TestSentToAName(t *testing.T) {
	for _, c := range []struct {
		name, addr string
		config     server.Config
		byName     int
	}{
		{name: "loopback", addr: "127.0.0.1:0", byName: http.StatusForbidden},
		{name: "let in", addr: "127.0.0.1:0", config: server.Config{InsecureAPI: true}, byName: http.StatusOK},
		{name: "let in from everywhere", addr: ":0", config: server.Config{InsecureAPI: true}, byName: http.StatusOK},
		{name: "with tokens", addr: "127.0.0.1:0", config: server.Config{Access: access.NewCallers(nil)}, byName: http.StatusUnauthorized},
	} {
		c.config.HTTPAddr = c.addr
		s := serve(t, accounts, nil, c.config)
		byAddress := c.byName
		if byAddress == http.StatusForbidden {
			byAddress = http.StatusOK
		}
		at := loopback(t, s.Addr("HTTP"))
		for host, want := range map[string]int{
			"evil.example": c.byName, "evil.example:8080": c.byName, "localhost:8080": byAddress, "127.0.0.1": byAddress, "[::1]:8080": byAddress,
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/"+accounting+"Check", strings.NewReader(`{"caller": {"domain": "llm"}}`))
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
				t.Errorf("%s, sent to %s: %d, want %d", c.name, host, answer.StatusCode, want)
			}
		}
	}
}

// A socket file is reached by those alone whom its permissions let.
func TestSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := serve(t, accounts, nil, server.Config{GRPCAddr: "unix:" + path})
	c := rationv1.NewAccountingServiceClient(client(t, "unix:"+path))
	if _, err := c.Check(t.Context(), &rationv1.CheckRequest{Caller: alice()}); err != nil || s.Restricted("gRPC") {
		t.Errorf("got %v, restricted %t", err, s.Restricted("gRPC"))
	}
}

// Both ways in answer the same.
func TestBothWays(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	for _, r := range []*rationv1.CheckRequest{
		{Caller: alice(), Estimate: estimate(100, 200)},
		{Caller: alice(), Estimate: estimate(1000, 0)},
		{Caller: as("banned")},
		{Caller: as("nothing that is limited")},
	} {
		want, err := s.Check(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := protojson.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		answer := post(t, s.Addr("HTTP"), accounting+"Check", string(body))
		var got rationv1.CheckResponse
		if err := protojson.Unmarshal([]byte(answer.text), &got); err != nil || answer.status != http.StatusOK {
			t.Fatalf("%+v: %v", answer, err)
		}
		if got.GetDecision().GetHttp().Headers == nil {
			got.GetDecision().GetHttp().Headers = map[string]string{}
		}
		if !proto.Equal(&got, want) {
			t.Errorf("over HTTP:\n%v\nover gRPC:\n%v", &got, want)
		}
	}
}

// The paths beside those of ration.v1 are as they were. (The health of this server was told nothing.)
func TestOtherPaths(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	for path, want := range map[string]int{
		"ration.v1.AccountingService/Nothing": 404, "ration.v1.NoService/Check": 404, "healthcheck": 500,
		"json": 400, accounting + "Check/": 404,
	} {
		if got := post(t, s.Addr("HTTP"), path, "{}"); got.status != want {
			t.Errorf("/%s: %+v, want %d", path, got, want)
		}
	}
}
