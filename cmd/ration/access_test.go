package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rationhq/ration/server/access"
)

// writeTokens puts a file of tokens in place in one step.
func writeTokens(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// checkAs calls AccountingService.Check over HTTP with a token, and returns the status.
func checkAs(t *testing.T, addr, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/ration.v1.AccountingService/Check",
		strings.NewReader(`{"caller":{"domain":"d"}}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// TestAccessIsReadAgain: a token is asked for on loopback too; new files are in force soon, bad ones and none leave what
// was; nothing that is printed holds a token.
func TestAccessIsReadAgain(t *testing.T) {
	first, firstHash := access.NewToken()
	second, secondHash := access.NewToken()
	entry := func(hash string) string {
		return fmt.Sprintf("tokens: [ { name: app, sha256: %s, may: account } ]\n", hash)
	}
	file := filepath.Join(t.TempDir(), "access.yaml")
	writeTokens(t, file, entry(firstHash))
	p := serve(t, "--policy", policyFile(t, 5), "--access", file)
	at := p.addrs(t)
	if none, known, other := checkAs(t, at.HTTP, ""), checkAs(t, at.HTTP, first), checkAs(t, at.HTTP, second); none != 401 || known != 200 || other != 401 {
		t.Fatalf("without a token %d, with one that is known %d, with another %d", none, known, other)
	}
	soon := func(token string, want int) {
		t.Helper()
		eventually(t, "the new tokens are in force", func() error {
			if got := checkAs(t, at.HTTP, token); got != want {
				return fmt.Errorf("the answer is %d, want %d", got, want)
			}
			return nil
		})
	}
	writeTokens(t, file, entry(secondHash))
	soon(second, 200)
	soon(first, 401)

	writeTokens(t, file, "tokens: [ { name: app, sha256: "+first+", may: account } ]\n")
	problems := p.waitForLog(t, "the new file of --access is not used, what was before stays in force", 1)
	if want := file + ":1:32: tokens[0] (\"app\"): sha256 is the token itself"; !strings.HasPrefix(problems[0].Problem, want) {
		t.Errorf("it says %q, want %q", problems[0].Problem, want)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.waitForLog(t, "the new file of --access is not used, what was before stays in force", 2)
	if got := checkAs(t, at.HTTP, second); got != 200 {
		t.Errorf("without a good file the token of before: %d", got)
	}
	writeTokens(t, file, entry(firstHash))
	soon(first, 200)
	_, page := get(t, "http://"+at.Metrics+"/metrics")
	for _, want := range []string{`ration_access_reloads_total{result="success"} 3`, `ration_access_reloads_total{result="failure"} 2`} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("the metrics lack %s: %s", want, linesOf(page, "ration_access"))
		}
	}
	p.stop(t)
	if said := p.said(); strings.Contains(said, first) || strings.Contains(said, second) {
		t.Errorf("it printed a token:\n%s", said)
	}
}

// TestAccessThatCannotWork: a file that is bad at the start ends it, and so do flags that contradict each other.
func TestAccessThatCannotWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.yaml")
	writeTokens(t, file, "tokens: [ { name: a }, { may: read } ]\n")
	code, _, stderr := runs(t, nil, "serve", "--access", file)
	if code != exitFailed || !strings.Contains(stderr, "ration: "+file+`:1:11: tokens[0] ("a"): sha256`) ||
		!strings.Contains(stderr, "\nration: "+file+`:1:24: tokens[1] (""): name is missing`) {
		t.Errorf("a bad file: exit code %d, %s", code, stderr)
	}
	if code, _, stderr = runs(t, nil, "serve", "--access", file+".none"); code != exitFailed || !strings.Contains(stderr, file+".none") {
		t.Errorf("no file: exit code %d, %s", code, stderr)
	}
	code, _, stderr = runs(t, map[string]string{"RATION_INSECURE_API": "true"}, "serve", "--access", file)
	if code != exitUsage || !strings.Contains(stderr, "RATION_INSECURE_API") || !strings.Contains(stderr, "--access") {
		t.Errorf("with --insecure-api: exit code %d, %s", code, stderr)
	}
}

// TestTokensInPlaintext: at an address that others reach it is said that they can be read on the way.
func TestTokensInPlaintext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.yaml")
	writeTokens(t, file, "tokens: []\n")
	p := serve(t, "--policy", policyFile(t, 5), "--access", file, "--http-addr", ":0")
	if got := p.waitForLog(t, "tokens come to this address in plaintext", 1); len(got) != 1 {
		t.Errorf("it says so of %d addresses, want 1", len(got))
	}
	p.stop(t)
}

// TestTokenNew: what it prints can be used as it is.
func TestTokenNew(t *testing.T) {
	code, token, entry := runs(t, nil, "token", "new", `a "b": c`, "--may", "account", "--may", "read",
		"--domain", "llm", "--subject", "user=team-*", "--expires", "2027-01-01")
	if code != exitOK || !strings.HasPrefix(token, access.Prefix) || strings.Count(token, "\n") != 1 {
		t.Fatalf("exit code %d, %q", code, token)
	}
	if l, err := access.Parse([]byte("tokens:\n" + entry)); err != nil || l.Tokens() != 1 || strings.Contains(entry, strings.TrimSpace(token)) {
		t.Errorf("%s: %v", entry, err)
	}
	for _, want := range []string{"may: [account, read]", `domains: ["llm"]`, `subjects: ["user=team-*"]`, `expires: "2027-01-01"`} {
		if !strings.Contains(entry, want) {
			t.Errorf("%s lacks %s", entry, want)
		}
	}
	for _, bad := range [][]string{
		{"token", "new", "a", "--may", "write"}, {"token", "new", "a", "--subject", "alice"}, {"token", "new", "a", "--expires", "never"},
		{"token", "new", "a", "--may", "admin", "--domain", "llm"},
	} {
		if code, stdout, stderr := runs(t, nil, bad...); code != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%v: exit code %d, %q, %q", bad, code, stdout, stderr)
		}
	}
}
