package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func names(contestants []contestant) string {
	var all []string
	for _, c := range contestants {
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

func TestContestantsComeFromThreePlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "more.yaml")
	if err := os.WriteFile(file, []byte("- name: filed\n  command: [x, '{grpc}']\n  env: {A: '{redis}'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inline := []string{`{name: inline, about: "on the command line", command: [y, "{grpc_port}"], counts: false}`}

	all, err := gather([]string{file}, inline, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(all), "floor ration-memory ration-rules ration-redis filed inline"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var redis, counting []contestant
	for _, c := range all {
		if c.needsRedis() {
			redis = append(redis, c)
		}
		if c.counts() {
			counting = append(counting, c)
		}
	}
	if got, want := names(redis), "ration-redis filed"; got != want {
		t.Errorf("with a Redis: %s, want %s", got, want)
	}
	if got, want := names(counting), "ration-memory ration-rules ration-redis filed"; got != want {
		t.Errorf("which must prove that they count: %s, want %s", got, want)
	}
}

func TestChosenContestantsAlwaysIncludeTheFloor(t *testing.T) {
	for _, chosen := range [][]string{{"ration-redis"}, {"floor", "ration-redis"}, {"ration-redis", "ration-redis"}} {
		got, err := gather(nil, nil, chosen)
		if err != nil {
			t.Fatal(err)
		}
		if want := "floor ration-redis"; names(got) != want {
			t.Errorf("%v: got %s, want %s", chosen, names(got), want)
		}
	}
}

func TestShippedContestantsAreWellFormed(t *testing.T) {
	files, err := filepath.Glob("../contestants/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of contestants: %v", err)
	}
	if _, err := gather(files, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestMistakesInContestantsAreExplained(t *testing.T) {
	tests := []struct {
		name, yaml, want string
	}{
		{"no name", `{command: [x, "{grpc}"]}`, "contestant 1 has no name"},
		{"no command", `{name: a}`, "contestant a has no command"},
		{"misspelt field", `{name: a, comand: [x, "{grpc}"]}`, "field comand not found"},
		{"unknown placeholder", `{name: a, command: [x, "{grcp}"]}`, "unknown placeholder {grcp}; there are {grpc},"},
		{"unknown placeholder in env", `{name: a, command: [x, "{grpc}"], env: {B: "{port}"}}`, "unknown placeholder {port}"},
		{"argument where none belongs", `{name: a, command: [x, "{grpc:1}"]}`, "unknown placeholder {grpc:1}"},
		{"nowhere to listen", `{name: a, command: [x, "{redis}"]}`, "cannot know where to listen"},
		{"taken name", `{name: floor, command: [x, "{grpc}"]}`, `two contestants are named "floor"`},
		{"unknown suite", `{name: a, command: [x, "{grpc}"], suites: [plane]}`, `unknown suite "plane"; there are [plain limits`},
		{"unknown placeholder in heap", `{name: a, command: [x, "{grpc}"], heap: "http://{addr}/"}`, "unknown placeholder {addr}"},
		{"not YAML", `{name: `, "yaml"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := gather(nil, []string{test.yaml}, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if _, err := gather(nil, nil, []string{"flor"}); err == nil || !strings.Contains(err.Error(), "there are floor, ration-memory") {
		t.Errorf("a contestant that does not exist: got %v", err)
	}
	if _, err := gather([]string{"nowhere.yaml"}, nil, nil); err == nil {
		t.Error("a file that does not exist: no error")
	}
}

func TestPlaceholdersAreFilledIn(t *testing.T) {
	launcher := launcher{
		binaries: map[string]string{"mine": "/opt/mine"},
		policy:   "/etc/bench/policy.yaml", limitsPolicy: "/etc/limits.yaml", accountsPolicy: "/etc/accounts", lanesPolicy: "/etc/lanes.yaml", rulesPolicy: "/etc/rules",
	}
	ports := &freePorts{}
	defer ports.release()
	command, env, err := launcher.prepare(contestant{
		Command: []string{
			"{bin:mine}", "--listen={grpc}", "{grpc_port}", "{redis_url}", "{redis}", "{redis_port}",
			"{policy}", "{policy_dir}", "{limits_policy}", "{accounts_policy}", "{lanes_policy}", "{rules_policy}", "{dir}", "{port:http}", "{addr:http}", "{addr:debug}", `{"json": "{grpc_port}"}`,
		},
		Env: map[string]string{"LISTEN": "{grpc}"},
	}, ports, "/tmp/here")
	if err != nil {
		t.Fatal(err)
	}
	grpc, redis, http, debug := ports.byName["grpc"], ports.byName["redis"], ports.byName["own.http"], ports.byName["own.debug"]
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	want := []string{
		"/opt/mine", "--listen=" + grpc, port(grpc), "redis://" + redis, redis, port(redis),
		"/etc/bench/policy.yaml", "/etc/bench", "/etc/limits.yaml", "/etc/accounts", "/etc/lanes.yaml", "/etc/rules", "/tmp/here", port(http), http, debug, `{"json": "` + port(grpc) + `"}`,
	}
	if !slices.Equal(command, want) {
		t.Errorf("command\n%q, want\n%q", command, want)
	}
	heap, err := launcher.fill("http://{addr:debug}/heap?gc=1", ports, "")
	if want := "http://" + debug + "/heap?gc=1"; err != nil || heap != want {
		t.Errorf("heap %q, %v; want %q, the address that the command has", heap, err, want)
	}
	if want := []string{"LISTEN=" + grpc}; !slices.Equal(env, want) {
		t.Errorf("env %q, want %q", env, want)
	}
	if different := []string{grpc, redis, http, debug}; len(slices.Compact(slices.Sorted(slices.Values(different)))) != 4 {
		t.Errorf("the same port twice: %q", different)
	}
}

func TestMissingBinaryIsAskedFor(t *testing.T) {
	_, _, err := launcher{}.prepare(contestant{Command: []string{"{bin:ration}"}}, &freePorts{}, "")
	if err == nil || !strings.Contains(err.Error(), "--bin ration=PATH") {
		t.Errorf("got %v", err)
	}
}
