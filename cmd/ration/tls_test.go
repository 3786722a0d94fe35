package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/cmd/ration/certs/certstest"
)

// clientTLS is a client that trusts an authority and shows a certificate, if one is given.
func clientTLS(t testing.TB, authority *certstest.Authority, shows *certstest.Pair) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "ration", MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	config.RootCAs.AppendCertsFromPEM(pem)
	if shows != nil {
		pair, err := tls.LoadX509KeyPair(shows.Cert, shows.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// askOver asks once over a connection of its own.
func askOver(t testing.TB, addr string, how credentials.TransportCredentials) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := ratelimitv3.NewRateLimitServiceClient(connect(t, addr, how)).ShouldRateLimit(ctx, request("d", "user", "a"))
	return err
}

// TestTLS serves with a certificate that anybody may connect to.
func TestTLS(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "ration")
	p := serve(t, "--policy", policyFile(t, 5), "--tls-cert", own.Cert, "--tls-key", own.Key)
	addr := p.addrs(t).GRPC
	if err := askOver(t, addr, credentials.NewTLS(clientTLS(t, authority, nil))); err != nil {
		t.Errorf("over TLS: %v", err)
	}
	if err := askOver(t, addr, insecure.NewCredentials()); status.Code(err) != codes.Unavailable {
		t.Errorf("in plaintext: %v, want UNAVAILABLE", err)
	}
	old := clientTLS(t, authority, nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is accepted, want 1.2 or later")
	}
	p.stop(t)
}

// TestMutualTLS walks through who may connect where clients must show who they are, by flags and by
// the established variables.
func TestMutualTLS(t *testing.T) {
	authority, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	own := authority.Issue(t, "ration")
	byFlags := serve(t, "--policy", policyFile(t, 5), "--tls-cert", own.Cert, "--tls-key", own.Key,
		"--tls-client-ca", authority.File, "--tls-client-san", "envoy.example", "--tls-client-san", "spiffe://example/envoy")
	byVariables := serveWith(t, map[string]string{
		"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": own.Cert, "GRPC_SERVER_TLS_KEY": own.Key,
		"GRPC_CLIENT_TLS_CACERT": authority.File, "GRPC_CLIENT_TLS_SAN": "envoy.example",
	}, "--policy", policyFile(t, 5))
	named, unnamed := authority.Issue(t, "envoy.example"), authority.Issue(t, "somebody.example")
	spiffe, foreign := authority.Issue(t, "spiffe://example/envoy"), other.Issue(t, "envoy.example")
	for _, c := range []struct {
		name     string
		server   *process
		shows    *certstest.Pair
		admitted bool
	}{
		{"the right name", byFlags, &named, true},
		{"the right URI", byFlags, &spiffe, true},
		{"another name", byFlags, &unnamed, false},
		{"another authority", byFlags, &foreign, false},
		{"nothing", byFlags, nil, false},
		{"by variables, the right name", byVariables, &named, true},
		{"by variables, another name", byVariables, &spiffe, false},
		{"by variables, nothing", byVariables, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := askOver(t, c.server.addrs(t).GRPC, credentials.NewTLS(clientTLS(t, authority, c.shows)))
			switch {
			case c.admitted && err != nil:
				t.Errorf("turned away: %v", err)
			case !c.admitted && status.Code(err) != codes.Unavailable:
				t.Errorf("got %v, want to be turned away", err)
			}
		})
	}
	byFlags.waitForLog(t, "a client was turned away", 1)
	byFlags.stop(t)
	byVariables.stop(t)
}

// TestCertificatesAreReplaced gives a server that runs a new certificate, then one that cannot be
// used, then another one that can.
func TestCertificatesAreReplaced(t *testing.T) {
	first, second := certstest.NewAuthority(t), certstest.NewAuthority(t)
	own := first.Issue(t, "ration")
	p := serve(t, "--policy", policyFile(t, 5), "--tls-cert", own.Cert, "--tls-key", own.Key)
	addr := p.addrs(t).GRPC
	trusted := func(authority *certstest.Authority) error {
		dialer := tls.Dialer{Config: clientTLS(t, authority, nil)}
		conn, err := dialer.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := trusted(first); err != nil {
		t.Fatalf("the first certificate: %v", err)
	}
	second.IssueTo(t, own, "ration")
	eventually(t, "the second certificate is used", func() error { return trusted(second) })

	if err := os.WriteFile(own.Cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log tells of the bad certificate", func() error {
		if err := trusted(second); err != nil {
			t.Fatalf("the second certificate is not used any more: %v", err)
		}
		if len(p.logged("the new certificates cannot be used")) == 0 {
			return errors.New("it does not")
		}
		return nil
	})

	first.IssueTo(t, own, "ration")
	eventually(t, "the third certificate is used", func() error { return trusted(first) })
	if n := len(p.logged("the new certificates cannot be used")); n != 1 {
		t.Errorf("the log tells of the bad certificate %d times, want once", n)
	}
	p.stop(t)
}

// TestGarbage sends to every port what is no request; then the server answers as before.
func TestGarbage(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "ration")
	plain := serve(t, "--policy", policyFile(t, 5))
	secure := serve(t, "--policy", policyFile(t, 5), "--tls-cert", own.Cert, "--tls-key", own.Key)
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(i * 167)
	}
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	at := plain.addrs(t)
	for name, addr := range map[string]string{
		"gRPC": at.GRPC, "HTTP": at.HTTP, "metrics": at.Metrics, "debug": at.Debug, "gRPC over TLS": secure.addrs(t).GRPC,
	} {
		for _, garbage := range []string{
			"", "\x00", "GET", "GET / HTTP/1.1\r\n\r\n", "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{",
			preface, preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + string(noise), "\x16\x03\x01\xff\xff" + string(noise), string(noise),
		} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, _ = conn.Write([]byte(garbage)) // the server may have had enough before the end
			conn.Close()
		}
	}
	for _, body := range []string{"", "null", "[]", "{", `{"domain": 5}`, `{"what": 1}`, strings.Repeat("[", 100_000)} {
		if code, _ := send(t, "POST", "http://"+at.HTTP+"/json", body); code != 400 {
			t.Errorf("/json answers %d to %.20q, want 400", code, body)
		}
	}
	if got := limitNow(t, limiter(t, at.GRPC), request("d", "user", "a")); got != 5 {
		t.Errorf("after the garbage the limit is %d, want 5", got)
	}
	if err := askOver(t, secure.addrs(t).GRPC, credentials.NewTLS(clientTLS(t, authority, nil))); err != nil {
		t.Errorf("after the garbage, over TLS: %v", err)
	}
	plain.stop(t)
	secure.stop(t)
}

// TestHugeKey sends a key of 10 MB: the answer says what is wrong with it, and the next one is as
// ever.
func TestHugeKey(t *testing.T) {
	p := serve(t, "--policy", policyFile(t, 5))
	at := p.addrs(t)
	client := limiter(t, at.GRPC)
	for _, c := range []struct {
		size int
		says string
	}{
		{10 << 20, "the request has 10485"},
		{2 << 10, "descriptors[0].entries[0].key: 2048 bytes, at most 1024 are allowed"},
	} {
		_, err := client.ShouldRateLimit(t.Context(), request("d", strings.Repeat("k", c.size), "v"))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("a key of %d bytes: %v, want INVALID_ARGUMENT that says %q", c.size, err, c.says)
		}
	}
	body := `{"domain":"d","descriptors":[{"entries":[{"key":"` + strings.Repeat("k", 10<<20) + `"}]}]}`
	if code, answer := send(t, "POST", "http://"+at.HTTP+"/json", body); code != 400 || len(answer) > 1000 {
		t.Errorf("/json answers %d with %d bytes to a key of 10 MB, want 400 and a line", code, len(answer))
	}
	if got := limitNow(t, client, request("d", "user", "a")); got != 5 {
		t.Errorf("after that the limit is %d, want 5", got)
	}
	p.stop(t)
}
