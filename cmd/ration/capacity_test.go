package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// TestCapacity holds what is printed, and how the command ends, to testdata. `go test -run TestCapacity ./cmd/ration -update`
// writes it anew.
func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"fits", []string{"--users", "40", "--tokens", "400", "--calls", "5"}, exitOK},
		{"tight", []string{"--users", "free=300,pro=40", "--tokens", "400,pro=2000", "--max-output", "1024"}, exitTight},
		{"too-much", []string{"--users", "300,pro=200", "--input", "300", "--output", "100", "--calls", "20,pro=30.5", "--duration", "30s"}, exitDoesNotFit},
		{"too-large", []string{"--users", "1", "--tokens", "6_000_000", "--calls", "1"}, exitDoesNotFit},
		{"unknown-model", []string{"--users", "100", "--tokens", "400", "--model", "other,pro=house-1"}, exitDoesNotFit},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"capacity", "--policy", "testdata/capacity.yaml"}, c.args...)
			code, stdout, stderr := inProcess(args...)
			if code != c.code || stderr != "" {
				t.Errorf("exit code %d and on stderr %q, want %d", code, stderr, c.code)
			}
			golden(t, "capacity-"+c.name, stdout)
		})
	}
	t.Setenv("RATION_POLICY", "testdata/capacity.yaml")
	_, stdout, _ := inProcess("capacity", "--users", "free=300,pro=40", "--tokens", "400", "-o", "json")
	if !json.Valid([]byte(stdout)) {
		t.Error("that is no JSON")
	}
	golden(t, "capacity-json", stdout)
}

// inProcess is what the command line prints, and its exit code, without a process for each.
func inProcess(args ...string) (code int, stdout, stderr string) {
	var out, errs strings.Builder
	code = run(args, &out, &errs)
	return code, out.String(), strings.TrimSuffix(errs.String(), "\n")
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it prints\n%s\nwant\n%s", got, want)
	}
}

// TestCapacityMisused: what cannot be planned is said in one line.
func TestCapacityMisused(t *testing.T) {
	for _, c := range []struct {
		args string
		says string
	}{
		{"--tokens 5", "missing flags: --users=N"},
		{"--users 5", "say what a call takes, by --tokens, or by --input and --output"},
		{"--users 5 --tokens 5 --input 4", "say what a call takes, by --tokens, or by --input and --output"},
		{"--users 5 --input 4", "--input and --output: say both of free"},
		{"--users gold=5 --tokens 5", `--users: the domain chat has no tier "gold", only free, pro`},
		{"--users free=5 --tokens pro=5", "--tokens: nothing is said of free"},
		{"--users free=5 --tokens 5 --calls pro=5", "--calls: nothing is said of free"},
		{"--users 0 --tokens 5", "--users: there are none"},
		{"--users 1x --tokens 5", `--users: "1x" is no number: use one from 0 to 1_000_000_000`},
		{"--users 1000000001 --tokens 5", `--users: "1000000001" is no number: use one from 0 to 1_000_000_000`},
		{"--users free=1,free=2 --tokens 5", `--users: "free=1,free=2" says two things of one tier`},
		{"--users 1,2 --tokens 5", `--users: "1,2" says two things of one tier`},
		{"--users 1 --tokens 5 --calls=-1", `--calls: "-1" is no number: use one such as 10 or 2.5`},
		{"--users 1 --tokens 5 --peak 0.5", "--peak: 0.5 is not in 1 to 60"},
		{"--users 1 --tokens 5 --hours 25", "--hours: 25 is not in 1 to 24"},
		{"--users 1 --tokens 5 --duration 0s", "--duration: a call takes up to an hour, and some time at least"},
		{"--users 1 --tokens 5 --model=", "--model: a name is missing: use one such as claude-haiku-4-5"},
		{"--users 1 --tokens 8 --max-output 1", "--max-output: a call of free cannot write 2 tokens where it asks for 1"},
		{"--users 1 --tokens 5 --domain other", `--domain: there is no "other", only chat`},
	} {
		args := append([]string{"capacity", "--policy", "testdata/capacity.yaml"}, strings.Fields(c.args)...)
		code, stdout, stderr := inProcess(args...)
		if code != exitUsage || stdout != "" || stderr != "ration: "+c.says {
			t.Errorf("%s: exit code %d, stdout %q, stderr\n%s\nwant\nration: %s", c.args, code, stdout, stderr, c.says)
		}
	}
	plain := filepath.Join(t.TempDir(), "plain.yaml")
	if err := os.WriteFile(plain, []byte("domain: plain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, says := range map[string]string{
		"--users free=1 --tokens 5": "ration: --users: the domain plain has no tiers: say one value for all",
		"--users 1 --tokens 5":      "ration: --model is missing: which one do users call?",
	} {
		if _, _, stderr := inProcess(append([]string{"capacity", "--policy", plain}, strings.Fields(args)...)...); stderr != says {
			t.Errorf("%s: %s\nwant %s", args, stderr, says)
		}
	}
	if code, _, stderr := inProcess("capacity", "--policy", "testdata/none.yaml", "--users", "1", "--tokens", "1"); code != exitFailed || stderr == "" {
		t.Errorf("no such policy: exit code %d, %q", code, stderr)
	}
}
