package client_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// files returns the names of what lies in a journal's directory, of one kind.
func files(t testing.TB, dir, suffix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func waitUntilDelivered(t testing.TB, dir string) {
	t.Helper()
	eventually(t, "the journal is empty", func() error {
		if left := files(t, dir, ".journal"); len(left) > 0 {
			return fmt.Errorf("%d files are left", len(left))
		}
		return nil
	})
}

// TestJournal: what cannot be delivered is kept, and arrives when the server is back.
func TestJournal(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	c := connect(t, s.Addr(), client.Options{
		Retry: impatient(), Journal: dir, JournalEvery: 10 * time.Millisecond, CloseTimeout: 100 * time.Millisecond,
	})
	leases := map[string]*client.Lease{}
	for _, user := range []string{"settled", "released", "closed", "left"} {
		lease, err := c.Reserve(t.Context(), call(user, client.Usage{Input: 100}))
		if err != nil {
			t.Fatal(err)
		}
		leases[user] = lease
	}
	s.set(true, false)
	if got, err := leases["settled"].Settle(t.Context(), client.Usage{Input: 30}); err != nil || !got.Journaled {
		t.Errorf("settled without a server: %+v, %v, want it journaled", got, err)
	}
	if got, err := leases["released"].Release(t.Context()); err != nil || !got.Journaled {
		t.Errorf("released without a server: %+v, %v, want it journaled", got, err)
	}
	leases["closed"].Observe(client.Usage{Input: 7})
	if err := leases["closed"].Close(); err != nil {
		t.Errorf("closed without a server: %v", err)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if got, err := leases["left"].Settle(left, client.Usage{Input: 9}); err != nil || !got.Journaled {
		t.Errorf("settled after the caller has left: %+v, %v, want it journaled", got, err)
	}
	got, err := c.Record(t.Context(), client.Record{Caller: call("recorded", client.Usage{}).Caller, Usage: client.Usage{Output: 11}})
	if err != nil || !got.Journaled {
		t.Errorf("recorded without a server: %+v, %v, want it journaled", got, err)
	}
	for user, lease := range leases {
		if _, err := lease.Settle(t.Context(), client.Usage{Input: 99}); !errors.Is(err, client.ErrEnded) {
			t.Errorf("%s: a settlement after one that lies in the journal: %v, want ErrEnded", user, err)
		}
	}
	s.set(false, false)
	waitUntilDelivered(t, dir)
	for user, want := range map[string]int64{"settled": 30, "released": 0, "closed": 7, "left": 9, "recorded": 11} {
		expect(t, c, user, want, 0)
	}
	if rejected := files(t, dir, ".rejected"); len(rejected) > 0 {
		t.Errorf("%v were rejected", rejected)
	}
}

// TestJournalAtOnce: what was not delivered at once is on disk, however long the caller would try.
func TestJournalAtOnce(t *testing.T) {
	s := serve(t)
	c := connect(t, s.Addr(), client.Options{
		Retry:   client.Retry{First: time.Hour, Most: time.Hour, Attempt: time.Second, Patience: 10 * time.Hour},
		Journal: t.TempDir(), JournalEvery: time.Hour,
	})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	s.set(true, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got, err := lease.Settle(t.Context(), client.Usage{Input: 30}); err != nil || !got.Journaled {
			t.Errorf("%+v, %v, want it journaled", got, err)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("it is not journaled after a minute")
	}
}

// TestJournalOfAnother: what a process has left is delivered by the next one, also where the server knows nothing of the
// reservation any more, for then the caller is told; and what another one holds is left to it.
func TestJournalOfAnother(t *testing.T) {
	first, second := serve(t), serve(t)
	dir := t.TempDir()
	c := connect(t, first.Addr(), client.Options{Retry: impatient(), Journal: dir, JournalEvery: time.Hour})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	unused, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	first.set(true, false)
	if got, err := lease.Settle(t.Context(), client.Usage{Input: 30}); err != nil || !got.Journaled {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := unused.Release(t.Context()); err != nil || !got.Journaled {
		t.Fatalf("%+v, %v", got, err)
	}
	nobodys := filepath.Join(dir, "zzz.journal") // the last that is looked at
	if err := os.WriteFile(nobodys, []byte("{\"torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := connect(t, second.addr, client.Options{Journal: dir, JournalEvery: 10 * time.Millisecond})
	eventually(t, "the directory was looked at", func() error {
		if _, err := os.Stat(nobodys); err == nil {
			return errors.New("a file that nobody holds is still there")
		}
		return nil
	})
	if left := files(t, dir, ".journal"); len(left) != 1 {
		t.Fatalf("there are the files %v, want the one of the process that lives", left)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntilDelivered(t, dir)
	expect(t, other, "alice", 30, 0)
	if aside := files(t, dir, ".rejected"); len(aside) > 0 {
		t.Errorf("what nobody knows holds nothing, and its release is put aside: %v", aside)
	}
}

// TestJournalIsBounded: what finds no room is an error, and not lost in silence.
func TestJournalIsBounded(t *testing.T) {
	s := serve(t)
	s.set(true, false)
	c := connect(t, s.Addr(), client.Options{Retry: impatient(), Journal: t.TempDir(), JournalSize: 1000, JournalEvery: time.Hour})
	record := client.Record{Caller: call("alice", client.Usage{}).Caller, Usage: client.Usage{Input: 1}}
	for n := 0; ; n++ {
		got, err := c.Record(t.Context(), record)
		if err == nil && got.Journaled && n < 10 {
			continue
		}
		if !errors.Is(err, client.ErrJournalFull) || !isOutage(err) || n == 0 {
			t.Fatalf("report %d: %+v, %v, want ErrJournalFull beside what keeps it from being delivered", n, got, err)
		}
		return
	}
}

// TestRejected: what the server will never take is put aside, and told of.
func TestRejected(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	var log logged
	c := connect(t, s.Addr(), client.Options{
		Retry: impatient(), Journal: dir, JournalEvery: 10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	s.set(true, false)
	if got, err := lease.Settle(t.Context(), client.Usage{Input: 30}); err != nil || !got.Journaled {
		t.Fatalf("%+v, %v", got, err)
	}
	// Meanwhile somebody else has settled it otherwise.
	direct := connect(t, s.addr, client.Options{})
	if _, err := rationv1.NewAccountingServiceClient(direct.Conn()).Settle(t.Context(), &rationv1.SettleRequest{
		ReservationId: lease.ID, Usage: &rationv1.Usage{InputTokens: 1},
	}); err != nil {
		t.Fatal(err)
	}
	// Whole at once: an empty one would be found, and taken away.
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("{\"crc32c\":\"0\"}\n{\"torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, old+".journal"); err != nil {
		t.Fatal(err)
	}
	s.set(false, false)
	waitUntilDelivered(t, dir)
	expect(t, c, "alice", 1, 0)
	aside := files(t, dir, ".rejected")
	if len(aside) != 1 {
		t.Fatalf("put aside are %v, want one file", aside)
	}
	text, err := os.ReadFile(aside[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"reason":"SETTLED_OTHERWISE"`, lease.ID, `"damaged":"{\"crc32c\":\"0\"}"`} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("put aside are\n%s\nwant %s, once", text, want)
		}
	}
	if strings.Contains(string(text), "torn") {
		t.Errorf("a line that was cut off is put aside:\n%s", text)
	}
	if !strings.Contains(log.String(), "SETTLED_OTHERWISE") {
		t.Errorf("the log says\n%s\nwant the reason", log.String())
	}
}

// TestKept: what can be delivered some day, and not yet, stays, and keeps nothing else back.
func TestKept(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	c := connect(t, s.Addr(), client.Options{Retry: impatient(), Journal: dir, JournalEvery: 10 * time.Millisecond})
	s.set(true, false)
	for i, domain := range []string{"coming", "llm", "coming too"} {
		caller := call("alice", client.Usage{}).Caller
		caller.Domain = domain
		got, err := c.Record(t.Context(), client.Record{Caller: caller, Usage: client.Usage{Input: 1}, Key: fmt.Sprint("key ", i)})
		if err != nil || !got.Journaled {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	s.set(false, false)
	var text []byte
	eventually(t, "one is delivered", func() error {
		text = nil
		for _, name := range files(t, dir, ".journal") {
			more, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text = append(text, more...)
		}
		if bytes.Contains(text, []byte("key 1")) || !bytes.HasSuffix(text, []byte("}\n")) {
			return fmt.Errorf("the journal has\n%s", text)
		}
		return nil
	})
	expect(t, c, "alice", 1, 0)
	if !bytes.Contains(text, []byte("key 0")) || !bytes.Contains(text, []byte("key 2")) || len(files(t, dir, ".rejected")) > 0 {
		t.Errorf("the journal has\n%s\nwant the other two, and none put aside", text)
	}
}

// TestNoKeyOnDisk: an API key is not written, so what cannot do without is an error.
func TestNoKeyOnDisk(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	c := connect(t, s.Addr(), client.Options{Retry: impatient(), Journal: dir, JournalEvery: time.Hour})
	secret := client.Call{Caller: client.Caller{Domain: "llm", Model: "small"}, Estimate: client.Usage{Input: 10}}
	secret.APIKey = aliceKey
	lease, err := c.Reserve(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	s.set(true, false)
	if got, err := lease.Settle(t.Context(), client.Usage{Input: 5}); err != nil || !got.Journaled {
		t.Errorf("settled: %+v, %v, want it journaled", got, err)
	}
	if got, err := c.Record(t.Context(), client.Record{Caller: secret.Caller}); err == nil || got.Journaled {
		t.Errorf("recorded: %+v, %v, want an error", got, err)
	}
	names := files(t, dir, "")
	if len(names) != 1 {
		t.Fatalf("there are %v, want one file", names)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(lease.ID)) || bytes.Contains(text, []byte(aliceKey)) {
		t.Errorf("the journal has\n%s\nwant the reservation, and no key", text)
	}
	// The server knows from the reservation who it was.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	next := connect(t, s.addr, client.Options{Journal: dir, JournalEvery: 10 * time.Millisecond})
	waitUntilDelivered(t, dir)
	expect(t, next, "alice", 5, 0)
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Variables that make this test's binary a process that reports usage until it is killed; without a journal it reserves, and waits
// to be killed.
const (
	dyingTarget  = "RATION_TEST_TARGET"
	dyingJournal = "RATION_TEST_JOURNAL"
)

func job() client.Caller {
	return client.Caller{Domain: "llm", Attributes: map[string]string{"job": "nightly"}}
}

// reportUntilKilled says before each report what it is, and after it that it was accepted.
func reportUntilKilled(target, journal string) {
	c, err := client.New(target, client.Options{
		Journal: journal, JournalEvery: 10 * time.Millisecond,
		Retry: client.Retry{First: time.Millisecond, Most: 5 * time.Millisecond, Attempt: 100 * time.Millisecond, Patience: 100 * time.Millisecond},
	})
	if err != nil {
		panic(err)
	}
	ctx, one := context.Background(), client.Usage{Input: 1}
	for {
		key := client.NewKey()
		fmt.Println("try record", key)
		if _, err := c.Record(ctx, client.Record{Caller: job(), Usage: one, Key: key}); err != nil {
			panic(err)
		}
		fmt.Println("ok record", key)
		lease, err := c.Reserve(ctx, client.Call{Caller: job(), Estimate: client.Usage{Input: 3}})
		if err != nil {
			continue
		}
		fmt.Println("try settle", lease.ID)
		if _, err := lease.Settle(ctx, one); err != nil {
			panic(err)
		}
		fmt.Println("ok settle", lease.ID)
	}
}

// reserveUntilKilled makes two calls of a model, and says of one of them what it has written so far.
func reserveUntilKilled(target string) {
	c, err := client.New(target, client.Options{})
	if err != nil {
		panic(err)
	}
	var last *client.Lease
	for _, user := range []string{"silent", "streaming"} {
		if last, err = c.Reserve(context.Background(), client.Call{
			Caller: call(user, client.Usage{}).Caller, Estimate: client.Usage{Input: 100, Output: 300}, Lease: time.Second,
		}); err != nil {
			panic(err)
		}
		fmt.Println("reserved", last.ID)
	}
	if _, err := rationv1.NewAccountingServiceClient(c.Conn()).Progress(context.Background(), &rationv1.ProgressRequest{
		ReservationId: last.ID, Usage: &rationv1.Usage{InputTokens: 100, OutputTokens: 40}, Lease: durationpb.New(time.Second),
	}); err != nil {
		panic(err)
	}
	fmt.Println("told", last.ID)
	select {}
}

// TestKilledInACall: what a process has reserved that dies is given back when its leases are over, but for what the policy leaves
// charged: the input, and what was told of a stream.
func TestKilledInACall(t *testing.T) {
	s := serve(t)
	dieAfter(t, s.addr, "", 3)
	c := connect(t, s.addr, client.Options{})
	for _, want := range []struct {
		user         string
		tokens, cost int64
	}{{"silent", 100, 100_000}, {"streaming", 140, 180_000}} {
		eventually(t, "the lease lapses", func() error {
			if spent, held := used(t, c, "user", want.user, "llm.user.tokens"); spent != want.tokens || held != 0 {
				return fmt.Errorf("%s: %d tokens are used and %d held, want %d and none", want.user, spent, held, want.tokens)
			}
			return nil
		})
		if spent, held := used(t, c, "user", want.user, "llm.user.spend"); spent != want.cost || held != 0 {
			t.Errorf("%s: %d nano-dollars are used and %d held, want %d and none", want.user, spent, held, want.cost)
		}
	}
}

// TestKilled: a process that reports usage dies at any moment, again and again, while the way to the server is cut now and
// then. What it was told is kept arrives; and nothing counts twice, whoever sends it again.
func TestKilled(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	tried, kept := map[string]bool{}, map[string]bool{}
	for round := range 10 {
		s.set(round%3 == 1, round%3 == 2)
		for _, line := range dieAfter(t, s.Addr(), dir, 3+rand.IntN(20)) {
			switch said, report, _ := strings.Cut(line, " "); said {
			case "try":
				tried[report] = true
			case "ok":
				kept[report] = true
			default:
				t.Fatalf("it said %q", line)
			}
		}
		s.set(true, false) // connections go with their process
	}
	s.set(false, false)
	c := connect(t, s.Addr(), client.Options{Journal: dir, JournalEvery: 10 * time.Millisecond})
	waitUntilDelivered(t, dir)
	if aside := files(t, dir, ".rejected"); len(aside) > 0 {
		text, _ := os.ReadFile(aside[0])
		t.Fatalf("rejected were\n%s", text)
	}
	spent, _ := used(t, c, "job", "nightly", "llm.job.tokens")
	if n := int64(len(kept)); spent < n || spent > int64(len(tried)) {
		t.Errorf("%d reports have arrived, of %d that were tried, and %d that were kept", spent, len(tried), n)
	}
	stub := rationv1.NewAccountingServiceClient(c.Conn())
	for report := range tried {
		kind, name, _ := strings.Cut(report, " ")
		replayed := false
		switch kind {
		case "record":
			got, err := c.Record(t.Context(), client.Record{Caller: job(), Usage: client.Usage{Input: 1}, Key: name})
			if err != nil {
				t.Fatal(err)
			}
			replayed = got.Replayed
		case "settle":
			got, err := stub.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: name, Usage: &rationv1.Usage{InputTokens: 1}})
			if err != nil {
				t.Fatal(err)
			}
			replayed = got.GetReplayed()
		}
		if kept[report] && !replayed {
			t.Errorf("%s was kept, and has not arrived", report)
		}
	}
	if spent, _ := used(t, c, "job", "nightly", "llm.job.tokens"); spent != int64(len(tried)) {
		t.Errorf("%d reports are counted, want each of the %d once", spent, len(tried))
	}
	t.Logf("%d reports, %d of them kept", len(tried), len(kept))
}

// dieAfter runs a process that reports usage, kills it when it has said so many lines, and returns all that it has said.
func dieAfter(t *testing.T, target, journal string, lines int) (said []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), dyingTarget+"="+target, dyingJournal+"="+journal)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		said = append(said, scan.Text())
		if len(said) == lines {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(said) < lines {
		t.Fatalf("it ended by itself after %d lines, and said\n%s", len(said), stderr.String())
	}
	return said
}
