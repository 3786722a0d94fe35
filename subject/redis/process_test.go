package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/redis"
)

// processAddr, in the environment, makes the test program a server of its own on the Redis there.
const processAddr = "RATION_TEST_SUBJECTS_REDIS"

var alice = subject.Ref{Domain: "llm", Name: "alice"}

// printChanges is that server: it asks its cache for alice all the time, and prints her tier when it is another one.
// Its input ends when it is to end.
func printChanges(addr string) {
	client := goredis.NewClient(&goredis.Options{Addr: addr})
	defer client.Close()
	d, err := redis.New(client, redis.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	c := subject.NewCache(d, subject.CacheOptions{})
	defer c.Close()
	over := make(chan bool)
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(over)
	}()
	last := ""
	for {
		now := "none"
		a, err := c.Get(context.Background(), alice)
		switch {
		case err != nil:
			now = err.Error()
		case a.Stale:
			continue
		case a.Subject != nil:
			now = a.Subject.Tier
		}
		if now += fmt.Sprint(" live=", c.Stats().Live); now != last {
			fmt.Println(now)
			last = now
		}
		select {
		case <-over:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// Another process hears of a change, within a second; and also after the connection over which it hears was cut, when
// it hears of nothing.
func TestAnotherProcessSeesAChange(t *testing.T) {
	server := redistest.Start(t)
	admin := newDirectory(t, single(t, server.Addr), "")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), processAddr+"="+server.Addr)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the other process: %v", err)
		}
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for all := bufio.NewScanner(out); all.Scan(); {
			lines <- all.Text()
		}
	}()
	defer func() {
		go func() {
			for range lines {
			}
		}()
	}()
	waitFor := func(want string) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case line := <-lines:
				if line == want {
					return
				}
			case <-deadline:
				t.Fatalf("the other process never said %q", want)
			}
		}
	}
	set := func(tier string) time.Time {
		t.Helper()
		_, err := admin.Change(t.Context(), alice, subject.By{Actor: "root", Reason: "test"}, func(s *subject.Subject) error {
			s.Tier = tier
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	waitFor("none live=true")
	for i := range 5 {
		tier := fmt.Sprint("tier", i)
		began := set(tier)
		waitFor(tier + " live=true")
		t.Logf("seen after %v", time.Since(began))
	}
	look := server.Client(t)
	for i := range 3 {
		if n, err := look.Do(t.Context(), "client", "kill", "type", "pubsub").Int(); err != nil || n == 0 {
			t.Fatalf("%d connections were cut, %v", n, err)
		}
		tier := fmt.Sprint("after the cut ", i)
		began := set(tier)
		for line := range lines {
			if line == tier+" live=false" {
				t.Logf("seen after %v, while nothing was heard", time.Since(began))
				waitFor(tier + " live=true")
				break
			}
			if line == tier+" live=true" {
				t.Logf("seen after %v", time.Since(began))
				break
			}
		}
	}
	set("at last")
	waitFor("at last live=true")
}
