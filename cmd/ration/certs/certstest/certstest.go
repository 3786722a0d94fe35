// Package certstest makes authorities and certificates for tests.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// File holds its certificate in PEM form.
	File string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is where a certificate and its key lie, in PEM form.
type Pair struct{ Cert, Key string }

// NewAuthority returns an authority of its own.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	template := template(t, "authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a := &Authority{File: filepath.Join(t.TempDir(), "ca.pem")}
	var der []byte
	a.cert, a.key, der = sign(t, template, nil)
	write(t, a.File, "CERTIFICATE", der)
	return a
}

// Issue returns a certificate for host names, URIs and 127.0.0.1, good for servers and clients; "CN=…" is the common name.
func (a *Authority) Issue(t testing.TB, names ...string) Pair {
	t.Helper()
	p := newPair(t)
	a.IssueTo(t, p, names...)
	return p
}

// IssueUntil is Issue of a certificate that is good until then, which may be less than an hour ago.
func (a *Authority) IssueUntil(t testing.TB, end time.Time, names ...string) Pair {
	t.Helper()
	p := newPair(t)
	a.issue(t, p, end, names)
	return p
}

func newPair(t testing.TB) Pair {
	t.Helper()
	dir := t.TempDir()
	return Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// IssueTo is Issue, into files that may be there already.
func (a *Authority) IssueTo(t testing.TB, p Pair, names ...string) {
	t.Helper()
	a.issue(t, p, time.Now().Add(time.Hour), names)
}

func (a *Authority) issue(t testing.TB, p Pair, end time.Time, names []string) {
	t.Helper()
	template := template(t, "leaf")
	template.NotAfter = end
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = append(template.IPAddresses, []byte{127, 0, 0, 1})
	for _, name := range names {
		if cn, ok := strings.CutPrefix(name, "CN="); ok {
			template.Subject.CommonName = cn
			continue
		}
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	_, key, der := sign(t, template, a)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.Cert, "CERTIFICATE", der)
	write(t, p.Key, "PRIVATE KEY", keyDER)
}

func template(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

// sign signs a certificate by an authority, or by itself.
func sign(t testing.TB, template *x509.Certificate, by *Authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, der
}

// write replaces a file as a whole: nobody reads half of it.
func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}
