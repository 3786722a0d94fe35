package server

import (
	"crypto/tls"
	"net/http"
	"time"
)

// forWeb returns the TLS of the gRPC listener for one that speaks HTTP/1.1 too. It follows what the other follows.
func forWeb(config *tls.Config) *tls.Config {
	with := func(c *tls.Config) *tls.Config {
		c = c.Clone()
		c.NextProtos = []string{"h2", "http/1.1"}
		return c
	}
	web := with(config)
	if now := config.GetConfigForClient; now != nil {
		web.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := now(hello)
			if c == nil || err != nil {
				return c, err
			}
			return with(c), nil
		}
	}
	return web
}

// untilExpired asks a client to connect again once the certificate that it has shown has expired: connections over HTTP
// last as long as they are used, and only a new one is verified.
func untilExpired(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && time.Now().After(r.TLS.PeerCertificates[0].NotAfter) {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}
