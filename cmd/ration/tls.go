package main

import (
	"crypto/tls"
	"log/slog"
	"net/url"
	"strings"

	"github.com/rationhq/ration/cmd/ration/certs"
)

// serverTLS returns the TLS of the gRPC address, and of others that ask for it; nil for plaintext.
func (f *serveFlags) serverTLS(env *environment, log *slog.Logger) (*tls.Config, error) {
	switch {
	case f.TLSCert == "" && f.TLSKey != "":
		return nil, misused("%s is set, but --tls-cert is not: TLS needs both", env.origin("tls-key"))
	case f.TLSCert == "" && f.TLSClientCA != "":
		return nil, misused("%s is set, but --tls-cert is not: clients are checked over TLS only", env.origin("tls-client-ca"))
	case f.TLSClientCA == "" && len(f.TLSClientSAN) > 0:
		return nil, misused("%s is set, but --tls-client-ca is not: names are checked in certificates of an authority",
			env.origin("tls-client-san"))
	case f.TLSClientCA == "" && f.TLSClientOptional:
		return nil, misused("%s is set, but --tls-client-ca is not: no certificates of clients are asked for",
			env.origin("tls-client-optional"))
	case f.TLSCert == "" && f.HTTPTLS:
		return nil, misused("%s is set, but --tls-cert is not: TLS needs a certificate", env.origin("http-tls"))
	case f.TLSCert == "" && f.AdminTLS:
		return nil, misused("%s is set, but --tls-cert is not: TLS needs a certificate", env.origin("admin-tls"))
	case f.TLSCert == "":
		return nil, nil
	case f.TLSKey == "":
		return nil, misused("%s is set, but --tls-key is not: TLS needs both", env.origin("tls-cert"))
	}
	config, err := certs.Server{
		Cert: f.TLSCert, Key: f.TLSKey, ClientCA: f.TLSClientCA, ClientSANs: f.TLSClientSAN,
		ClientOptional: f.TLSClientOptional, Log: log,
	}.Config()
	if err != nil {
		return nil, misused("TLS (%s): %w", env.origin("tls-cert"), err)
	}
	return config, nil
}

// redisTLS returns the TLS to Redis, or nil where the store's URL says it all.
func (f *serveFlags) redisTLS(env *environment) (*tls.Config, error) {
	on := f.RedisTLS || asksForTLS(f.Store)
	special := false
	for _, s := range []struct {
		flag string
		set  bool
	}{
		{"redis-tls-ca", f.RedisTLSCA != ""},
		{"redis-tls-cert", f.RedisTLSCert != ""},
		{"redis-tls-key", f.RedisTLSKey != ""},
		{"redis-tls-skip-hostname-verification", f.RedisTLSSkipVerify},
	} {
		special = special || s.set
		if s.set && !on {
			return nil, misused("%s is set, but TLS is off: use rediss://, or --redis-tls", env.origin(s.flag))
		}
	}
	if (f.RedisTLSCert == "") != (f.RedisTLSKey == "") {
		return nil, misused("of --redis-tls-cert and --redis-tls-key only one is set: a certificate needs both")
	}
	if !f.RedisTLS && !special {
		return nil, nil
	}
	config, err := certs.Client{
		CA: f.RedisTLSCA, Cert: f.RedisTLSCert, Key: f.RedisTLSKey, AnyHost: f.RedisTLSSkipVerify,
	}.Config()
	if err != nil {
		return nil, misused("TLS to Redis: %w", err)
	}
	return config, nil
}

// asksForTLS reports whether the store's URL does.
func asksForTLS(store string) bool {
	if strings.HasPrefix(store, "rediss://") {
		return true
	}
	_, query, _ := strings.Cut(store, "?")
	values, err := url.ParseQuery(query)
	return err == nil && values.Get("tls") == "true"
}
