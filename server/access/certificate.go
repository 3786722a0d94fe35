package access

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Where a certificate has its names: the fields of an entry. The first are looked at before the others.
const (
	kindURI        = "uri"
	kindDNS        = "dns"
	kindCommonName = "common_name"
)

func nameKinds() []string { return []string{kindURI, kindDNS, kindCommonName} }

// certName is a name that a certificate has.
type certName struct{ kind, text string }

// folded returns what stands for all spellings of the name.
func (n certName) folded() certName {
	if n.kind == kindDNS {
		n.text = strings.ToLower(n.text)
	}
	return n
}

// namesOf returns the names of a certificate of a kind.
func namesOf(cert *x509.Certificate, kind string) (names []certName) {
	switch kind {
	case kindURI:
		for _, u := range cert.URIs {
			names = append(names, certName{kindURI, u.String()})
		}
	case kindDNS:
		for _, name := range cert.DNSNames {
			names = append(names, certName{kindDNS, name}.folded())
		}
	case kindCommonName:
		if cert.Subject.CommonName != "" {
			names = append(names, certName{kindCommonName, cert.Subject.CommonName})
		}
	}
	return names
}

// verifiedCertificate returns the certificate that a client has shown, and that was verified; nil: none. Nothing that
// the client says in the call counts, in whatever header.
func verifiedCertificate(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	// Without verified chains the certificate is only what somebody has sent.
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

// byCertificate returns whose certificate it is, or why that cannot be said. Of its names the URIs come first, then the
// DNS names, then the common name: authorities look at that least. Two callers by one kind of name are none, since one of
// them may be allowed what the other is not.
func (l *List) byCertificate(cert *x509.Certificate) (*Caller, error) {
	var seen []string
	for _, kind := range nameKinds() {
		var found *Caller
		for _, name := range namesOf(cert, kind) {
			c := l.certificates[name]
			switch {
			case c == nil || c == found:
			case found != nil:
				return nil, fmt.Errorf("the certificate is that of %.100q and of %.100q: use one that is for one of them, "+
					"or leave one of them out of the file of --access", found.Name, c.Name)
			default:
				found = c
			}
			seen = append(seen, fmt.Sprintf("%s %.200q", kind, name.text))
		}
		if found != nil {
			return found, nil
		}
	}
	const most = 10
	names := strings.Join(seen[:min(len(seen), most)], ", ")
	switch {
	case len(seen) == 0:
		names = "it has neither a URI, nor a DNS name, nor a common name"
	case len(seen) > most:
		names += ", …"
	}
	return nil, fmt.Errorf("the certificate is verified, but not known (%s): whoever runs ration enters one of its names "+
		"below `certificates:` in the file of --access; or send a token", names)
}
