package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/cmd/ration/certs"
	"github.com/rationhq/ration/cmd/ration/certs/certstest"
)

// handshake lets a client connect to a server, and returns what went wrong at either of them.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = conn.Write([]byte("x"))
			_ = conn.Close()
		}
		served <- err
	}()
	dialer := tls.Dialer{Config: client}
	conn, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err == nil {
		// In TLS 1.3 a client learns only here that it was turned away.
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if serverErr := <-served; serverErr != nil {
		return serverErr
	}
	return err
}

func config(t *testing.T, s certs.Server) *tls.Config {
	t.Helper()
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func trusting(t *testing.T, c certs.Client) *tls.Config {
	t.Helper()
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = "server.example"
	return config
}

// TestClientNames: one of the names that are allowed is enough, and is matched as TLS does.
func TestClientNames(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "server.example")
	client := authority.Issue(t, "*.envoy.example", "spiffe://example/envoy")
	for _, c := range []struct {
		allowed  []string
		admitted bool
	}{
		{nil, true},
		{[]string{"a.envoy.example"}, true},
		{[]string{"A.Envoy.Example"}, true},
		{[]string{"a.b.envoy.example"}, false},
		{[]string{"envoy.example"}, false},
		{[]string{"spiffe://example/envoy"}, true},
		{[]string{"spiffe://example/envoy/x"}, false},
		{[]string{"127.0.0.1"}, true},
		{[]string{"127.0.0.2"}, false},
		{[]string{"other.example", "a.envoy.example"}, true},
		{[]string{""}, false},
	} {
		var log bytes.Buffer
		server := config(t, certs.Server{
			Cert: own.Cert, Key: own.Key, ClientCA: authority.File, ClientSANs: c.allowed, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		err := handshake(t, server, trusting(t, certs.Client{CA: authority.File, Cert: client.Cert, Key: client.Key}))
		if (err == nil) != c.admitted {
			t.Errorf("allowed %q: %v, want admitted to be %t", c.allowed, err, c.admitted)
		}
		if logged := strings.Contains(log.String(), "*.envoy.example"); logged == c.admitted {
			t.Errorf("allowed %q: the log says %q", c.allowed, log.String())
		}
	}
}

// TestClientAuthority replaces the authority of clients: from then on only the new one's get in.
func TestClientAuthority(t *testing.T) {
	first, second := certstest.NewAuthority(t), certstest.NewAuthority(t)
	own := first.Issue(t, "server.example")
	ofFirst, ofSecond := first.Issue(t, "client"), second.Issue(t, "client")
	server := config(t, certs.Server{Cert: own.Cert, Key: own.Key, ClientCA: first.File, Interval: time.Nanosecond})
	admits := func(client certstest.Pair) bool {
		return handshake(t, server, trusting(t, certs.Client{CA: first.File, Cert: client.Cert, Key: client.Key})) == nil
	}
	if !admits(ofFirst) || admits(ofSecond) {
		t.Fatal("at first not the clients of the first authority are admitted, and only they")
	}
	old, err := os.ReadFile(first.File)
	if err != nil {
		t.Fatal(err)
	}
	replacement, err := os.ReadFile(second.File)
	if err != nil {
		t.Fatal(err)
	}
	trustsFirst := trusting(t, certs.Client{CA: first.File})
	if err := os.WriteFile(first.File, replacement, 0o600); err != nil {
		t.Fatal(err)
	}
	client := trusting(t, certs.Client{Cert: ofSecond.Cert, Key: ofSecond.Key})
	client.RootCAs = trustsFirst.RootCAs
	if err := handshake(t, server, client); err != nil {
		t.Errorf("after the change a client of the second authority: %v", err)
	}
	if err := os.WriteFile(first.File, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if !admits(ofFirst) || admits(ofSecond) {
		t.Error("changed back, not the clients of the first authority are admitted, and only they")
	}
}

// TestLooksAreRare: within the interval the files are not read again, whoever connects.
func TestLooksAreRare(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "server.example")
	var log bytes.Buffer
	server := config(t, certs.Server{
		Cert: own.Cert, Key: own.Key, Interval: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err := os.Remove(own.Cert); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, server, trusting(t, certs.Client{CA: authority.File})); err != nil {
		t.Errorf("the certificate of before is not used: %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("the files were looked at: %s", log.String())
	}
}

// TestFilesThatCannotBeUsed: each error names the file.
func TestFilesThatCannotBeUsed(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own, other := authority.Issue(t, "a"), authority.Issue(t, "b")
	for want, s := range map[string]certs.Server{
		"/nowhere":      {Cert: own.Cert, Key: "/nowhere"},
		own.Cert:        {Cert: own.Cert, Key: other.Key},
		other.Key + " ": {Cert: own.Cert, Key: own.Key, ClientCA: other.Key},
	} {
		if _, err := s.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error that names %s", s, err, want)
		}
	}
	for want, c := range map[string]certs.Client{
		"/nowhere":      {CA: "/nowhere"},
		own.Cert:        {Cert: own.Cert},
		other.Key + " ": {CA: other.Key},
	} {
		if _, err := c.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error that names %s", c, err, want)
		}
	}
}

// TestAnyHost: the name is not looked at, the authority and the dates are.
func TestAnyHost(t *testing.T) {
	authority, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	own := authority.Issue(t, "another.example")
	server := config(t, certs.Server{Cert: own.Cert, Key: own.Key})
	for _, c := range []struct {
		client   certs.Client
		admitted bool
	}{
		{certs.Client{CA: authority.File}, false},
		{certs.Client{CA: authority.File, AnyHost: true}, true},
		{certs.Client{CA: other.File, AnyHost: true}, false},
		{certs.Client{AnyHost: true}, false},
	} {
		if err := handshake(t, server, trusting(t, c.client)); (err == nil) != c.admitted {
			t.Errorf("%+v: %v, want admitted to be %t", c.client, err, c.admitted)
		}
	}
}

// TestNoPoolMeansNobody guards what RequireAndVerifyClientCert falls back to without an authority.
func TestNoPoolMeansNobody(t *testing.T) {
	authority := certstest.NewAuthority(t)
	own := authority.Issue(t, "server.example")
	c := config(t, certs.Server{Cert: own.Cert, Key: own.Key, ClientCA: authority.File})
	now, err := c.GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	if now.ClientAuth != tls.RequireAndVerifyClientCert || now.ClientCAs == nil || now.ClientCAs.Equal(x509.NewCertPool()) {
		t.Errorf("clients are checked by %v against %v", now.ClientAuth, now.ClientCAs)
	}
}
