package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/access"
)

// accessFile is the file of --access, which may change.
type accessFile struct {
	path  string
	known *access.Callers
	// verified says that certificates of clients are asked for.
	verified bool
	log      *slog.Logger
	// last is what was read last, good or bad; nil: nothing could be read.
	last []byte
	// failed is what was said of it last, so that it is said once.
	failed string
	again  chan struct{}
}

// accessInterval is how often the file is looked at: a token that is taken out is refused that much later at most.
const accessInterval = time.Second

// openAccess reads the file of --access; nil where there is none.
func (f *serveFlags) openAccess(env *environment, log *slog.Logger) (*accessFile, error) {
	if f.Access == "" {
		return nil, nil
	}
	if f.InsecureAPI {
		return nil, misused("%s lets everybody in, and %s only who has a token or a certificate: leave one of them out",
			env.origin("insecure-api"), env.origin("access"))
	}
	a := &accessFile{path: f.Access, known: access.NewCallers(nil), verified: f.TLSClientCA != "", log: log, again: make(chan struct{}, 1)}
	data, err := a.read()
	if err != nil {
		return nil, err
	}
	list, err := a.parse(data)
	if err != nil {
		return nil, err
	}
	a.last = data
	a.known.Set(list)
	return a, nil
}

func (a *accessFile) read() ([]byte, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, fmt.Errorf("--access: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, access.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("--access: %w", err)
	}
	return data, nil
}

// parse reads what the file holds. An error says where in it, each problem on a line.
func (a *accessFile) parse(data []byte) (*access.List, error) {
	list, err := access.Parse(data)
	if err == nil && list.Certificates() > 0 && !a.verified {
		err = errors.New("it names certificates, but none are asked for: set --tls-client-ca, to the authorities that sign them")
	}
	if err == nil {
		return list, nil
	}
	var lines []string
	for _, problem := range problemsOf(err) {
		separator := ": "
		if _, placed := errors.AsType[*access.Problem](problem); placed {
			separator = ":"
		}
		lines = append(lines, a.path+separator+problem.Error())
	}
	return nil, errors.New(strings.Join(lines, "\n"))
}

// problemsOf takes errors apart that were joined.
func problemsOf(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// watch puts every new version of the file in force until ctx ends. A bad one leaves what was.
func (a *accessFile) watch(ctx context.Context) {
	tick := time.NewTicker(accessInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.again:
		case <-tick.C:
		}
		a.look()
	}
}

// reload looks at the file at once.
func (a *accessFile) reload() {
	select {
	case a.again <- struct{}{}:
	default: // it is about to look
	}
}

func (a *accessFile) look() {
	data, err := a.read()
	if err == nil && a.last != nil && bytes.Equal(data, a.last) {
		return
	}
	var list *access.List
	if a.last = data; err == nil {
		list, err = a.parse(data)
	}
	if err != nil {
		if err.Error() != a.failed {
			a.failed = err.Error()
			a.known.Failed()
			a.log.Error("the new file of --access is not used, what was before stays in force", "problem", a.failed)
		}
		return
	}
	a.failed = ""
	a.known.Set(list)
	a.log.Info("a new file of --access is in force", "file", a.path, "tokens", list.Tokens(), "certificates", list.Certificates())
}

// warnPlaintext says at which addresses others can read the tokens that are sent.
func (f *serveFlags) warnPlaintext(s *server.Server, log *slog.Logger) {
	for _, l := range []struct {
		name, cure string
		tls        bool
	}{
		{"gRPC", "--tls-cert", f.TLSCert != ""},
		{"HTTP", "--http-tls", f.HTTPTLS},
		{"admin", "--admin-tls", f.AdminTLS},
	} {
		host, _, err := net.SplitHostPort(s.Addr(l.name))
		if err != nil || l.tls {
			continue // a socket file, none, or TLS
		}
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			log.Warn("tokens come to this address in plaintext: let it speak TLS, or something in front of it",
				"listener", l.name, "addr", s.Addr(l.name), "set", l.cure)
		}
	}
}
