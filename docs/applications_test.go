package docs_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rationhq/ration/store/redis/redistest"
)

// application is one of those that docs/accounting.md shows: it answers POST /api/chat with what a model writes.
type application struct {
	name     string
	file     string // that the page shows
	language string // as the page says it
	most     int    // lines; 0: any number
	// command runs it on a port of 127.0.0.1.
	command func(t *testing.T, root, port string) []string
}

func applications() []application {
	return []application{
		{"FastAPI", "examples/fastapi/chat.py", "python", 40, func(t *testing.T, root, port string) []string {
			python := filepath.Join(root, ".cache/fastapi/bin/python")
			if _, err := os.Stat(python); err != nil {
				t.Fatalf("FastAPI is not in .cache/fastapi: run `make test`, which installs it (%v)", err)
			}
			return []string{python, "-m", "uvicorn", "--app-dir", "examples/fastapi", "--log-level", "warning", "--port", port, "chat:app"}
		}},
		{"Next.js", "examples/nextjs/app/api/chat/route.js", "js", 0, func(t *testing.T, _, port string) []string {
			if _, err := exec.LookPath("node"); err != nil {
				t.Fatalf("there is no Node.js: %v (`make test` installs it)", err)
			}
			return []string{"node", "docs/testdata/next.mjs", "examples/nextjs/app/api/chat/route.js", port}
		}},
	}
}

// The page shows the applications as they are run, and the policy as it is served.
func TestShownFiles(t *testing.T) {
	page, err := os.ReadFile("accounting.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := func(file, language string) (lines int) {
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```"+language+"\n"+string(text)+"```\n") {
			t.Errorf("the page does not show %s as it is", file)
		}
		return strings.Count(string(text), "\n")
	}
	shown("examples/accounting.yaml", "yaml")
	for _, a := range applications() {
		if n := shown(a.file, a.language); a.most > 0 && n > a.most {
			t.Errorf("%s has %d lines, want at most %d", a.file, n, a.most)
		}
	}
}

// What the page says of its applications: a call is settled by what the model has told, or, where the user hangs up, by what it
// has written until then; a refusal is handed on; and a call that was not made is given back.
func TestApplications(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := tools(t, root)
	for _, a := range applications() {
		t.Run(a.name, func(t *testing.T) {
			s := newSite(t, root, bin)
			s.serve(t, filepath.Join(bin, "ration"), "serve", "--policy", "examples/accounting.yaml")
			m := newModel(t)
			chat := s.runs(t, a, m.URL)

			t.Run("settled", func(t *testing.T) {
				answer := chat.ask(t, "alice", "tell", 9_000)
				text, err := io.ReadAll(answer.body)
				if err != nil || answer.status != http.StatusOK || !strings.HasPrefix(answer.header.Get("Content-Type"), "text/event-stream") {
					t.Fatalf("%d %v, %v\n%s", answer.status, answer.header, err, text)
				}
				if string(text) != m.tells() {
					t.Errorf("the user reads\n%s\nof\n%s", text, m.tells())
				}
				if got := m.heard(); len(got) != 1 || got[0] != 8_000 {
					t.Errorf("the model heard the caps %d, want that of the tier, 8,000", got)
				}
				s.waitUntilUsed(t, "alice", "llm.user.tokens", 1_070)
				s.waitUntilUsed(t, "alice", "llm.user.spend", 875_000)
			})
			t.Run("hung up", func(t *testing.T) {
				answer := chat.ask(t, "carol", "wait", 500)
				lines := bufio.NewReader(answer.body)
				for range 2 * pieces { // each has an empty line behind it
					if _, err := lines.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				used, held := s.used(t, "carol", "llm.user.tokens")
				if used != 0 || held <= 500 {
					t.Errorf("%d used and %d held in mid-stream, want the prompt and 500 held", used, held)
				}
				answer.hangUp()
				s.waitUntilUsed(t, "carol", "llm.user.tokens", held-500+pieces)
				m.waitUntilLeft(t)
			})
			t.Run("refused", func(t *testing.T) {
				s.post(t, "AccountingService/Record", `{"caller": {"domain": "llm", "attributes": {"user": "bob"}, "model": "small"},
					"usage": {"outputTokens": 1900}}`, nil)
				calls := len(m.heard())
				answer := chat.ask(t, "bob", "tell", 500)
				var body struct{ Error, Message string }
				if err := json.NewDecoder(answer.body).Decode(&body); err != nil {
					t.Fatal(err)
				}
				wait, err := strconv.Atoi(answer.header.Get("Retry-After"))
				if answer.status != http.StatusTooManyRequests || err != nil || wait <= 0 || answer.header.Get("X-Should-Retry") != "false" ||
					answer.header.Get("X-Ratelimit-Remaining-Tokens") != "100" || answer.header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%d\n%v", answer.status, answer.header)
				}
				if body.Error != "quota_exhausted" || !strings.HasPrefix(body.Message, "Monthly quota used up: 1,900 of 2,000 tokens; 100 left.") {
					t.Errorf("the user reads %+v", body)
				}
				if len(m.heard()) != calls {
					t.Error("the model was called")
				}
				s.waitUntilUsed(t, "bob", "llm.user.tokens", 1_900)
			})
			t.Run("not made", func(t *testing.T) {
				calls := len(m.heard())
				answer := chat.ask(t, "dora", "fail", 500)
				_, _ = io.Copy(io.Discard, answer.body) // it breaks off
				if len(m.heard()) != calls+1 {
					t.Error("the model was not called")
				}
				s.waitUntilUsed(t, "dora", "llm.user.tokens", 0)
			})
		})
	}
}

// model is a stub of a service of models: it streams pieces of an answer in the manner of OpenAI.
type model struct {
	*httptest.Server
	mu   sync.Mutex
	caps []int // of each call
	left chan struct{}
}

// pieces are what the model writes before it tells what was used, or waits.
const pieces = 3

func newModel(t *testing.T) *model {
	m := &model{left: make(chan struct{}, 1)}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			Messages  []struct{ Content string }
			MaxTokens int `json:"max_tokens"`
			Stream    bool
		}
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || len(ask.Messages) != 1 || !ask.Stream {
			http.Error(w, fmt.Sprintf("%v: %+v", err, ask), http.StatusBadRequest)
			return
		}
		m.mu.Lock()
		m.caps = append(m.caps, ask.MaxTokens)
		m.mu.Unlock()
		what, _, _ := strings.Cut(ask.Messages[0].Content, ":")
		if what == "fail" {
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, m.writes())
		_ = http.NewResponseController(w).Flush()
		if what == "wait" {
			<-r.Context().Done()
			m.left <- struct{}{}
			return
		}
		_, _ = io.WriteString(w, strings.TrimPrefix(m.tells(), m.writes()))
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *model) writes() string {
	return strings.Repeat(`data: {"choices":[{"delta":{"content":"word "}}],"usage":null}`+"\n\n", pieces)
}

func (m *model) tells() string {
	return m.writes() + `data: {"choices":[],"usage":{"prompt_tokens":950,"prompt_tokens_details":{"cached_tokens":750},` +
		`"completion_tokens":120}}` + "\n\ndata: [DONE]\n\n"
}

// heard returns the caps of the calls so far.
func (m *model) heard() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]int(nil), m.caps...)
}

// waitUntilLeft waits until nobody reads what the model still writes.
func (m *model) waitUntilLeft(t *testing.T) {
	t.Helper()
	select {
	case <-m.left:
	case <-time.After(patience):
		t.Error("the model goes on writing for nobody")
	}
}

const patience = 30 * time.Second

// chat is where an application runs.
type chat struct{ url string }

// runs runs an application over a model, until the test ends.
func (s *site) runs(t *testing.T, a application, model string) chat {
	t.Helper()
	port := strconv.Itoa(redistest.FreePort(t))
	command := a.command(t, s.root, port)
	c := exec.Command(command[0], command[1:]...)
	c.Dir, c.Env = s.root, append(os.Environ(), "RATION_URL=http://127.0.0.1:"+s.ports["8080"], "MODEL_URL="+model)
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = output, output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = c.Process.Kill()
			<-ended
		}
		_ = output.Close()
		if text, _ := os.ReadFile(output.Name()); t.Failed() {
			t.Logf("%s said:\n%s", a.name, text)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
			return chat{"http://127.0.0.1:" + port + "/api/chat"}
		}
		select {
		case <-ended:
			t.Fatalf("%s ended by itself", a.name)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", a.name, err)
		}
	}
}

// said is what an application answers, while it does.
type said struct {
	status int
	header http.Header
	body   io.Reader
	hangUp func()
}

// ask asks as a user's browser does. What the model does stands in the first word.
func (c chat) ask(t *testing.T, user, what string, most int) said {
	t.Helper()
	body := fmt.Sprintf(`{"model": "small", "messages": [{"role": "user", "content": "%s: %s"}], "max_tokens": %d}`,
		what, strings.Repeat("x", 400), most)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-User", user)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	hangUp := func() { _ = answer.Body.Close() }
	t.Cleanup(hangUp)
	return said{answer.StatusCode, answer.Header, answer.Body, hangUp}
}

// post calls a method of ration.
func (s *site) post(t *testing.T, method, body string, into any) {
	t.Helper()
	url := "http://127.0.0.1:" + s.ports["8080"] + "/ration.v1." + method
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", method, answer.Status, err, text)
	}
}

// used returns how a limit stands for a user.
func (s *site) used(t *testing.T, user, path string) (used, held int64) {
	t.Helper()
	var usage struct {
		Limits []struct {
			Status struct {
				Limit      string
				Used, Held int64 `json:",string"`
			}
		}
	}
	s.post(t, "UsageService/GetUsage", fmt.Sprintf(`{"caller": {"domain": "llm", "attributes": {"user": %q}}}`, user), &usage)
	for _, l := range usage.Limits {
		if l.Status.Limit == path {
			return l.Status.Used, l.Status.Held
		}
	}
	t.Fatalf("%s has no limit %s: %+v", user, path, usage)
	return 0, 0
}

// waitUntilUsed waits until so much is used of a limit, and nothing held: a settlement follows the end of an answer, and may do
// so a little later.
func (s *site) waitUntilUsed(t *testing.T, user, path string, used int64) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		nowUsed, nowHeld := s.used(t, user, path)
		if nowUsed == used && nowHeld == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s: %d used and %d held, want %d and none", path, user, nowUsed, nowHeld, used)
		}
	}
}
