// Package certs makes TLS configurations of files.
//
// Those of a server follow their files: certificates that are replaced, as cert-manager and others
// do, are used from the next handshake on. It knows nothing of the rest of the project. Read
// [Server.Config] first.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server says which files a server's TLS comes from.
type Server struct {
	Cert, Key string // PEM
	// ClientCA, where set, is a PEM file: clients must show a certificate of an authority in it.
	ClientCA string
	// ClientSANs, where set, are names of which the client's certificate must be for one: a DNS name
	// or IP, matched as TLS matches them, or exactly a URI or an email address.
	ClientSANs []string
	// ClientOptional lets clients in that show no certificate; one that is shown has to be good all the same.
	ClientOptional bool
	// Log takes what happens to the files; nil discards it.
	Log *slog.Logger
	// Interval is the shortest time between two looks at the files; 0 means one second.
	Interval time.Duration
}

// Config returns a configuration that follows the files. It fails if they cannot be used now; later
// ones that cannot be used are logged once, and those before stay in use.
func (s Server) Config() (*tls.Config, error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Interval <= 0 {
		s.Interval = time.Second
	}
	f := &follower{server: s}
	var err error
	if f.content, err = s.read(); err != nil {
		return nil, err
	}
	if f.config, err = s.build(f.content); err != nil {
		return nil, err
	}
	f.looked = time.Now()
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current(), nil },
	}, nil
}

// content is what the files hold: certificate, key and client authorities.
type content [3][]byte

func (c *content) equal(d *content) bool {
	return slices.EqualFunc(c[:], d[:], bytes.Equal)
}

func (s *Server) read() (*content, error) {
	var c content
	for i, name := range []string{s.Cert, s.Key, s.ClientCA} {
		if name == "" {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c[i] = data
	}
	return &c, nil
}

func (s *Server) build(c *content) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(c[0], c[1])
	if err != nil {
		return nil, fmt.Errorf("the certificate %s with the key %s: %w", s.Cert, s.Key, err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair},
		// A session that is taken up again would not be checked against files that came in between.
		SessionTicketsDisabled: true,
	}
	if s.ClientCA == "" {
		return config, nil
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	if s.ClientOptional {
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(c[2]) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", s.ClientCA)
	}
	config.VerifyConnection = s.verifyClient
	return config, nil
}

// verifyClient checks whom the client's certificate is for; that it is valid was checked before.
func (s *Server) verifyClient(state tls.ConnectionState) error {
	if len(s.ClientSANs) == 0 || len(state.PeerCertificates) == 0 {
		return nil // without a certificate nobody comes here but where it is optional
	}
	leaf := state.PeerCertificates[0]
	if slices.ContainsFunc(s.ClientSANs, func(name string) bool { return isFor(leaf, name) }) {
		return nil
	}
	err := errors.New("the client's certificate is for none of the names that are allowed")
	s.Log.Warn("a client was turned away", "error", err, "names", namesOf(leaf))
	return err
}

func isFor(cert *x509.Certificate, name string) bool {
	return cert.VerifyHostname(name) == nil || slices.Contains(cert.EmailAddresses, name) || slices.Contains(uris(cert), name)
}

func uris(cert *x509.Certificate) []string {
	var all []string
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return all
}

func namesOf(cert *x509.Certificate) string {
	all := slices.Concat(cert.DNSNames, cert.EmailAddresses, uris(cert))
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	return strings.Join(all, ", ")
}

// follower holds the newest configuration that could be used.
type follower struct {
	server Server

	mu      sync.Mutex
	config  *tls.Config
	content *content // what was read last, usable or not
	failed  string   // why the last look failed, or empty
	looked  time.Time
}

// current returns the configuration for a new connection. It looks at the files if that was not done
// within the interval.
func (f *follower) current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) >= f.server.Interval {
		f.look()
		f.looked = time.Now()
	}
	return f.config
}

func (f *follower) look() {
	read, err := f.server.read()
	if err == nil {
		if read.equal(f.content) {
			return
		}
		f.content = read
		var config *tls.Config
		if config, err = f.server.build(read); err == nil {
			f.config, f.failed = config, ""
			f.server.Log.Info("new certificates are in use", "cert", f.server.Cert)
			return
		}
	}
	if text := err.Error(); text != f.failed {
		f.failed = text
		f.server.Log.Error("the new certificates cannot be used, those before stay in use", "error", err)
	}
}
