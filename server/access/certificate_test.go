package access_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/rationhq/ration/server/access"
)

// shown is a call over a connection with a certificate for URIs, DNS names and a common name ("CN=…").
func shown(t *testing.T, verified bool, names ...string) context.Context {
	t.Helper()
	cert := &x509.Certificate{}
	for _, name := range names {
		if cn, ok := strings.CutPrefix(name, "CN="); ok {
			cert.Subject = pkix.Name{CommonName: cn}
			continue
		}
		u, err := url.Parse(name)
		if err == nil && u.Scheme != "" {
			cert.URIs = append(cert.URIs, u)
			continue
		}
		cert.DNSNames = append(cert.DNSNames, name)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	if verified {
		state.VerifiedChains = [][]*x509.Certificate{{cert}}
	}
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
}

// Who a certificate stands for: by which of its names, and why by none.
func TestCertificates(t *testing.T) {
	token, hash := access.NewToken()
	list, err := access.Parse([]byte(`
tokens:
  - { name: robot, sha256: ` + hash + `, may: read }
certificates:
  - { name: billing, uri: spiffe://example/billing, may: account }
  - { name: spare, uri: spiffe://example/spare, may: account }
  - { name: site, dns: Site.example, may: account }
  - { name: star, dns: "*.example", may: account }
  - { name: carol, common_name: Carol Smith, may: account }
  - { name: past, dns: past.example, may: account, expires: 2026-01-01 }
`))
	if err != nil {
		t.Fatal(err)
	}
	callers := access.NewCallers(func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) })
	callers.Set(list)
	gate := &access.Gate{Callers: callers}
	bearer := func(ctx context.Context, token string) context.Context {
		return metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
	}
	for _, c := range []struct {
		name, want string // the credential, or part of the error
		ctx        context.Context
	}{
		{"a URI", "certificate billing", shown(t, true, "spiffe://example/billing")},
		{"one of several URIs", "certificate billing", shown(t, true, "spiffe://other/x", "spiffe://example/billing")},
		{"a DNS name, in whatever case", "certificate site", shown(t, true, "sITE.example")},
		{"a common name", "certificate carol", shown(t, true, "CN=Carol Smith")},
		{"the URI comes before the rest", "certificate billing", shown(t, true, "spiffe://example/billing", "site.example", "CN=Carol Smith")},
		{"the DNS name before the common name", "certificate site", shown(t, true, "site.example", "CN=Carol Smith")},
		{"a star that is in the certificate", "certificate star", shown(t, true, "*.example")},

		{"of two", `that of "billing" and of "spare"`, shown(t, true, "spiffe://example/billing", "spiffe://example/spare")},
		{"a common name in another case", "is verified, but not known", shown(t, true, "CN=carol smith")},
		{"a star of the file stands for itself", "is verified, but not known", shown(t, true, "any.example")},
		{"a name as another kind", `not known (dns "carol smith")`, shown(t, true, "Carol Smith")},
		{"a URI below", `not known (uri "spiffe://example/billing/x", dns "a.b", common_name "C")`, shown(t, true, "spiffe://example/billing/x", "a.b", "CN=C")},
		{"no name at all", "neither a URI, nor a DNS name, nor a common name", shown(t, true)},
		{"many names", `…)`, shown(t, true, strings.Split(strings.Repeat("x.example,", 11), ",")[:11]...)},
		{"expired by the file", "the certificate has expired by the file of --access", shown(t, true, "past.example")},
		{"shown, but not verified", "came without a token", shown(t, false, "spiffe://example/billing")},
		{"no certificate", "came without a token, and without a certificate that was verified: send one", t.Context()},

		{"a token beside it counts alone", "token robot", bearer(shown(t, true, "spiffe://example/billing"), token)},
		{"and beside one that nobody knows", "token robot", bearer(shown(t, true, "x.example"), token)},
		{"a bad token is not made good for", "the token is not known", bearer(shown(t, true, "spiffe://example/billing"), "x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, err := gate.Admit(c.ctx, "/ration.v1.AccountingService/Check")
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("refused: %v, want %q", err, c.want)
				}
				return
			}
			if got := access.CallerOf(ctx).Credential(); got != c.want {
				t.Errorf("admitted as %q, want %q", got, c.want)
			}
		})
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(callers)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]int{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "ration_access_refused_total" {
				counted[m.GetLabel()[0].GetValue()] = int(m.GetCounter().GetValue())
			}
		}
	}
	want := map[string]int{"certificate": 7, "expired": 1, "missing": 2, "unknown": 1, "method": 0, "scope": 0}
	if !maps.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
}

// The rights of a certificate are those of its entry, and the message says what it is.
func TestRightsOfCertificates(t *testing.T) {
	list, err := access.Parse([]byte(`certificates: [ { name: looks, dns: looks.example, may: read } ]`))
	if err != nil {
		t.Fatal(err)
	}
	callers := access.NewCallers(nil)
	callers.Set(list)
	_, err = (&access.Gate{Callers: callers}).Admit(shown(t, true, "looks.example"), "/ration.v1.AccountingService/Reserve")
	if err == nil || !strings.Contains(err.Error(), "the certificate does not permit this method: it needs `may: account`") {
		t.Error(err)
	}
}
