package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Options of a client. The zero value talks plaintext, shows no token, and keeps no journal.
type Options struct {
	// Token is shown to the server with each call: "authorization: Bearer …". Empty: none. Without TLS whoever is on the
	// way can read it.
	Token string
	// TLS is how the server is spoken to; nil: plaintext.
	TLS *tls.Config
	// Dial are options of the connection beside these.
	Dial []grpc.DialOption
	// Retry says how calls are repeated.
	Retry Retry

	// Journal is a directory for reports that cannot be delivered: made if it is not there. Several processes may share
	// one. Empty: what cannot be delivered is an error.
	Journal string
	// JournalSize is how many bytes may lie in this process's journal; 0: 64 MiB. Beyond, what cannot be delivered is an
	// error that is ErrJournalFull.
	JournalSize int64
	// JournalEvery is how often what lies in the journal is tried again; 0: 5 s.
	JournalEvery time.Duration

	// ProgressEvery is how often the server is told of what leases observe, at most; 0: every 10 s, or three times in a
	// lease, whichever is more often.
	ProgressEvery time.Duration
	// CloseTimeout bounds Lease.Close; 0: 5 s.
	CloseTimeout time.Duration
	// Log takes what an operator should know of reports that were journaled, delivered late, or rejected; nil discards it.
	Log *slog.Logger
}

// Client talks to one ration, over one connection, and over more while many calls wait for a turn. It may be used by many
// goroutines.
type Client struct {
	options Options
	conn    *grpc.ClientConn
	api     rationv1.AccountingServiceClient
	waiting *connections
	journal *journal // nil: none

	// running ends when the client is closed; it bounds what goes on in the background.
	running    context.Context
	stop       context.CancelFunc
	mu         sync.Mutex // of closed, and of adding to background
	closed     bool
	background sync.WaitGroup
}

// New returns a client of the ration at target: host:port, unix:/path, or what else gRPC knows. It does not wait for the
// server to be there. An error is about the target, or the journal's directory.
func New(target string, options Options) (*Client, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.JournalSize = orElse(options.JournalSize, 64<<20)
	options.JournalEvery = orElse(options.JournalEvery, 5*time.Second)
	options.CloseTimeout = orElse(options.CloseTimeout, 5*time.Second)
	options.Retry = options.Retry.orDefaults()

	how := insecure.NewCredentials()
	if options.TLS != nil {
		how = credentials.NewTLS(options.TLS)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(how),
		grpc.WithChainUnaryInterceptor(options.Retry.unary),
		// gRPC's own default comes back after up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: options.Retry.First, Multiplier: 1.6, Jitter: 0.2, MaxDelay: options.Retry.Most},
			MinConnectTimeout: options.Retry.Attempt,
		}),
	}
	if options.Token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(options.Token)))
	}
	connect := func() (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient(target, append(dial, options.Dial...)...)
		if err != nil {
			return nil, fmt.Errorf("ration at %s: %w", target, err)
		}
		return conn, nil
	}
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	c := &Client{
		options: options, conn: conn, api: rationv1.NewAccountingServiceClient(conn),
		waiting: &connections{connect: connect, all: []*connection{{conn: conn}}},
	}
	c.running, c.stop = context.WithCancel(context.Background())
	if options.Journal != "" {
		if c.journal, err = openJournal(options.Journal, options.JournalSize, options.Log); err != nil {
			c.stop()
			_ = conn.Close()
			return nil, err
		}
		c.background.Go(func() { c.deliver(c.running) })
	}
	return c, nil
}

// Conn returns the connection, for generated stubs: rationv1.NewUsageServiceClient(c.Conn()). Calls over it show the
// token, and those that change nothing, or have a key, are repeated.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends what goes on in the background, and the connection. What lies in the journal stays there, for the next
// process that opens its directory. Leases that are still open lapse by themselves. Closing it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	c.stop()
	c.background.Wait()
	if c.journal != nil {
		c.journal.close()
	}
	return c.waiting.close()
}

// inBackground runs f beside the caller, unless the client is closed. Close waits for it.
func (c *Client) inBackground(f func(ctx context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.background.Go(func() { f(c.running) })
	}
}

// NewKey returns an idempotency key that nobody else has: 128 random bits.
func NewKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// bearer shows a token.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: on loopback, and inside a mesh, plaintext is usual.
func (bearer) RequireTransportSecurity() bool { return false }

func orElse[T int | int64 | time.Duration](value, fallback T) T {
	if value > 0 {
		return value
	}
	return fallback
}
