package main

import (
	"bytes"
	"context"
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
	path   string
	tokens *access.Tokens
	log    *slog.Logger
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
		return nil, misused("%s lets everybody in, and %s only who has a token: leave one of them out",
			env.origin("insecure-api"), env.origin("access"))
	}
	a := &accessFile{path: f.Access, tokens: access.NewTokens(nil), log: log, again: make(chan struct{}, 1)}
	data, err := a.read()
	if err != nil {
		return nil, err
	}
	list, err := access.Parse(data)
	if err != nil {
		return nil, a.wrong(err)
	}
	a.last = data
	a.tokens.Set(list)
	return a, nil
}

func (a *accessFile) read() ([]byte, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, fmt.Errorf("tokens of --access: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, access.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("tokens of --access: %w", err)
	}
	return data, nil
}

// wrong says where the problems of a file are, each on a line.
func (a *accessFile) wrong(err error) error {
	return fmt.Errorf("%s: %s", a.path, strings.ReplaceAll(err.Error(), "\n", "\n"+a.path+": "))
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
		if list, err = access.Parse(data); err != nil {
			err = a.wrong(err)
		}
	}
	if err != nil {
		if err.Error() != a.failed {
			a.failed = err.Error()
			a.tokens.Failed()
			a.log.Error("the new tokens are not used, those before stay in force", "problem", a.failed)
		}
		return
	}
	a.failed = ""
	a.tokens.Set(list)
	a.log.Info("tokens in force", "file", a.path, "tokens", list.Len())
}

// warnPlaintext says at which addresses others can read the tokens that are sent.
func (f *serveFlags) warnPlaintext(s *server.Server, log *slog.Logger) {
	for _, name := range []string{"gRPC", "HTTP", "admin"} {
		host, _, err := net.SplitHostPort(s.Addr(name))
		if err != nil || name == "gRPC" && f.TLSCert != "" {
			continue // a socket file, none, or TLS
		}
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			log.Warn("tokens come to this address in plaintext: let something in front of it speak TLS", "listener", name, "addr", s.Addr(name))
		}
	}
}
