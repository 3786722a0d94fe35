package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/store/redis/redistest"
)

// warningPolicy gives each user 1,000 tokens a year, with a warning at each tenth.
func warningPolicy(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
domain: llm
descriptors:
  - key: user
    subject: true
    limits:
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/year, warn_at: [ 10%, 20%, 30%, 40%, 50%, 60%, 70%, 80%, 90%, 100% ] }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// spend lets somebody use tokens, until the server has heard of it: under a key, once.
func spend(t testing.TB, c rationv1.AccountingServiceClient, user, key string, tokens int64) {
	t.Helper()
	eventually(t, "usage is recorded", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.Record(ctx, &rationv1.RecordRequest{
			Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": user}}, Usage: &rationv1.Usage{OutputTokens: tokens}, IdempotencyKey: key,
		})
		return err
	})
}

// inbox is a receiver of events. It takes none while it is away.
type inbox struct {
	*httptest.Server
	secret string

	mu      sync.Mutex
	away    bool
	refused int
	ids     map[string]map[string]int // by what they are about: how often each id was taken
	wrong   error
}

func newInbox(t testing.TB) *inbox {
	t.Helper()
	in := &inbox{away: true, ids: make(map[string]map[string]int), secret: "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))}
	verifier, err := standardwebhooks.NewWebhook(in.secret)
	if err != nil {
		t.Fatal(err)
	}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.away {
			in.refused++
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var m struct {
			Type string
			Data struct {
				ID, Subject      string
				ThresholdPercent int
			}
		}
		in.wrong = errors.Join(in.wrong, err, verifier.Verify(body, r.Header), json.Unmarshal(body, &m))
		if id := r.Header.Get("webhook-id"); m.Type != "ration.threshold" || m.Data.ID != id {
			in.wrong = fmt.Errorf("%s: %s", id, body)
		}
		about := fmt.Sprintf("%s %d", m.Data.Subject, m.Data.ThresholdPercent)
		if in.ids[about] == nil {
			in.ids[about] = make(map[string]int)
		}
		in.ids[about][m.Data.ID]++
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) comeBack() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.away = false
}

// TestEveryThresholdArrives: a thousand reports at once, a receiver that is away at first, and a server that is killed
// in the middle, and begins again with what is on its disk. Every threshold arrives, under one id.
func TestEveryThresholdArrives(t *testing.T) {
	in := newInbox(t)
	grpcAddr := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	args := []string{
		"--policy", warningPolicy(t), "--data", filepath.Join(t.TempDir(), "data"), "--webhook-url", in.URL + "/very-secret", "--grpc-addr", grpcAddr,
	}
	env := map[string]string{"RATION_WEBHOOK_SECRET": in.secret}
	first := serveWith(t, env, args...)
	first.addrs(t)
	c := rationv1.NewAccountingServiceClient(connect(t, grpcAddr, insecure.NewCredentials()))
	const users, each = 10, 100
	var reporting sync.WaitGroup
	for u := range users {
		for half := range 2 {
			reporting.Go(func() {
				for i := half; i < each; i += 2 {
					spend(t, c, fmt.Sprintf("u%d", u), fmt.Sprintf("%d-%d", u, i), 10)
				}
			})
		}
	}
	eventually(t, "the receiver is tried", func() error {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.refused < 5 {
			return fmt.Errorf("%d times", in.refused)
		}
		return nil
	})
	first.signal(t, syscall.SIGKILL)
	first.exit(t)
	second := serveWith(t, env, args...)
	in.comeBack()
	reporting.Wait()
	eventually(t, "all thresholds arrive", func() error {
		in.mu.Lock()
		defer in.mu.Unlock()
		if n := len(in.ids); n < users*10 {
			return fmt.Errorf("%d of %d", n, users*10)
		}
		return in.wrong
	})
	in.mu.Lock()
	for about, ids := range in.ids {
		if len(ids) != 1 {
			t.Errorf("%s has the ids %v", about, ids)
		}
	}
	in.mu.Unlock()
	at := second.addrs(t)
	eventually(t, "nothing waits", func() error {
		_, page := get(t, "http://"+at.Metrics+"/metrics")
		if !strings.Contains(page, "\nration_webhook_waiting 0\n") {
			return errors.New(linesOf(page, "ration_webhook"))
		}
		return nil
	})
	second.stop(t)
	for _, p := range []*process{first, second} {
		if said := p.said(); strings.Contains(said, "very-secret") || strings.Contains(said, in.secret) {
			t.Errorf("the log holds what is secret:\n%s", said)
		}
	}
	if !strings.Contains(first.said(), "was not taken") {
		t.Errorf("the log does not say that events are not taken:\n%s", first.said())
	}
}

// TestOneServerSends: of two with one Redis one sends, and when it ends the other one goes on. Nothing is sent twice.
func TestOneServerSends(t *testing.T) {
	in := newInbox(t)
	in.comeBack()
	args := []string{"--policy", warningPolicy(t), "--store", redistest.Start(t).URL(), "--webhook-url", in.URL}
	env := map[string]string{"RATION_WEBHOOK_SECRET": in.secret}
	first, second := serveWith(t, env, args...), serveWith(t, env, args...)
	var clients []rationv1.AccountingServiceClient
	for _, p := range []*process{first, second} {
		clients = append(clients, rationv1.NewAccountingServiceClient(connect(t, p.addrs(t).GRPC, insecure.NewCredentials())))
	}
	arrived := func(n int) {
		t.Helper()
		eventually(t, "events arrive", func() error {
			in.mu.Lock()
			defer in.mu.Unlock()
			if len(in.ids) < n {
				return fmt.Errorf("%d of %d", len(in.ids), n)
			}
			for about, ids := range in.ids {
				for id, times := range ids {
					if len(ids) != 1 || times != 1 {
						t.Errorf("%s came as %s %d times", about, id, times)
					}
				}
			}
			return in.wrong
		})
	}
	var reporting sync.WaitGroup
	for i, c := range clients {
		reporting.Go(func() {
			for n := range 25 {
				spend(t, c, "ann", fmt.Sprintf("%d-%d", i, n), 10)
			}
		})
	}
	reporting.Wait()
	arrived(5)
	sent := func(p *process) bool {
		_, page := get(t, "http://"+p.addrs(t).Metrics+"/metrics")
		return !strings.Contains(page, `ration_webhook_deliveries_total{result="delivered"} 0`)
	}
	if sent(first) == sent(second) {
		t.Errorf("the first has sent: %v, and so the second", sent(first))
	}
	one, other := first, second
	client := clients[1]
	if sent(second) {
		one, other, client = second, first, clients[0]
	}
	one.stop(t)
	spend(t, client, "ann", "last", 500)
	arrived(10)
	other.stop(t)
}

// A webhook that can never work is an error at the start, which names the flag, and what to do; never the secret.
func TestWebhookMisuse(t *testing.T) {
	good := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("whsec_c2hvcnQ="), 0o600); err != nil {
		t.Fatal(err)
	}
	type vars = map[string]string
	for _, c := range []struct {
		vars vars
		args []string
		want string
	}{
		{vars{"RATION_WEBHOOK_SECRET": good}, []string{"--webhook-url=ftp://example.com"}, "--webhook-url: it begins neither with https://"},
		{vars{"RATION_WEBHOOK_SECRET": good, "RATION_WEBHOOK_URL": "https://"}, nil, "RATION_WEBHOOK_URL: it names no host"},
		{nil, []string{"--webhook-url=https://example.com/x"}, "--webhook-url: receivers cannot tell events from forgeries"},
		{vars{"RATION_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, []string{"--webhook-url=https://example.com/x"}, "RATION_WEBHOOK_SECRET: a secret has 5 bytes, want 24 to 64: make one by"},
		{nil, []string{"--webhook-url=https://example.com/x", "--webhook-secret-file=" + file}, "--webhook-secret-file: a secret has 5 bytes"},
		{nil, []string{"--webhook-url=https://example.com/x", "--webhook-secret-file=" + file + "x"}, "--webhook-secret-file: open "},
		{vars{"RATION_WEBHOOK_SECRET": good}, []string{"--webhook-url=https://example.com/x", "--webhook-secret-file=" + file}, "both say the secret"},
		{nil, []string{"--webhook-secret-file=" + file}, "--webhook-secret-file: there is a secret, and no receiver"},
	} {
		code, _, said := runs(t, c.vars, append([]string{
			"serve", "--grpc-addr=", "--metrics-addr=", "--debug-addr=", "--admin-addr=", "--http-addr=127.0.0.1:0",
		}, c.args...)...)
		if code != exitUsage || !strings.Contains(said, c.want) || strings.Contains(said, "c2hvcnQ") || strings.Contains(said, good) {
			t.Errorf("%v: exit code %d\n%s\nwant %d and %s", c.args, code, said, exitUsage, c.want)
		}
	}
}
