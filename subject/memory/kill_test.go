package memory_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/memory"
	"github.com/rationhq/ration/subject/subjecttest"
)

// killDirectory, in the environment of a child, is where it changes subjects until it is killed.
const killDirectory = "RATION_TEST_SUBJECTS_DIRECTORY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirectory); dir != "" {
		changeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

const admins = 4

func admin(i int) subject.Ref { return subject.Ref{Domain: "llm", Name: fmt.Sprint("user ", i)} }

// changeUntilKilled is the child: each administrator counts a subject of his own up, gives it another API key each time,
// and deletes it at every tenth count, from which the next one goes on. It writes a line for each that was answered.
func changeUntilKilled(dir string) {
	d, err := memory.Open(dir, memory.Options{})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	var all sync.WaitGroup
	for i := range admins {
		all.Go(func() {
			s, _, err := d.Find(context.Background(), admin(i))
			if err != nil {
				fmt.Println("find:", err)
				os.Exit(1)
			}
			for n := count(s) + 1; ; n++ {
				_, err := d.Change(context.Background(), admin(i), by, func(s *subject.Subject) error {
					s.Tier = strconv.Itoa(n)
					s.APIKeys = []subject.APIKey{{Hash: subjecttest.NewKey()}}
					return nil
				})
				if err == nil && n%10 == 0 {
					_, err = d.Delete(context.Background(), admin(i), by)
				}
				if err != nil {
					fmt.Println("change:", err)
					os.Exit(1)
				}
				fmt.Printf("%d %d\n", i, n)
			}
		})
	}
	all.Wait()
}

func count(s subject.Subject) int {
	n, _ := strconv.Atoi(s.Tier)
	return n
}

// Whatever the instant at which a process is killed: the file opens, and every change that was answered is there, whole,
// with its API key and its audit row.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	changes := 0
	for round := range 30 {
		last, said := changeAndKill(t, dir, round)
		d := openDir(t, dir)
		for i := range admins {
			s, found, err := d.Find(t.Context(), admin(i))
			if err != nil {
				t.Fatal(err)
			}
			n, answered := count(s), last[i]
			deleted := !found && answered > 0 && (answered%10 == 0 || answered%10 == 9)
			if !deleted && n < answered || n > answered+1 && answered > 0 {
				t.Errorf("round %d: %d was answered, and there is %d", round, answered, n)
			}
			if found {
				if owner, _, err := d.FindByKey(t.Context(), s.APIKeys[0].Hash); err != nil || owner.Ref() != admin(i) {
					t.Errorf("round %d: the API key of %v is that of %v, %v", round, admin(i), owner.Ref(), err)
				}
			}
			rows, err := d.Audit(t.Context(), admin(i), "", 1)
			if err != nil || found && (len(rows) != 1 || rows[0].Revision != s.Revision) {
				t.Errorf("round %d: at revision %d the newest row is %+v, %v", round, s.Revision, rows, err)
			}
		}
		changes += said
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d changes were answered", changes)
	if changes < 200 {
		t.Errorf("only %d changes: the kills come too early to prove anything", changes)
	}
}

// changeAndKill lets a child change subjects for a random time, and returns what was answered last to each.
func changeAndKill(t *testing.T, dir string, round int) (last [admins]int, said int) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killDirectory+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	life := time.Duration(rand.IntN(20)) * time.Millisecond // killed while it creates the file, or soon after
	if round > 5 {
		life = time.Duration(50+rand.IntN(150)) * time.Millisecond
	}
	timer := time.AfterFunc(life, func() { _ = child.Process.Kill() })
	defer timer.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var i, n int
		switch _, err := fmt.Sscan(lines.Text(), &i, &n); {
		case err == nil && n >= last[i]:
			last[i] = n
			said++
		case strings.ContainsAny(lines.Text(), ":"):
			t.Errorf("round %d: the child says %q", round, lines.Text())
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	return last, said
}
