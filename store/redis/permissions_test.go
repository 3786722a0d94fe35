package redis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis/redistest"
)

// names returns the commands that Ready asks for.
func names() []string {
	var all []string
	for _, c := range commands {
		name, _, _ := strings.Cut(c, " ")
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// What Ready asks for is what the scripts call, and what it takes to run them and to hear of events.
func TestAskedPermissions(t *testing.T) {
	needed := []string{"eval", "evalsha", "subscribe"}
	call := regexp.MustCompile(`call\('([A-Z]+)'`)
	err := fs.WalkDir(lua, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(lua, name)
		for _, c := range call.FindAllStringSubmatch(string(text), -1) {
			needed = append(needed, strings.ToLower(c[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(needed)
	if needed = slices.Compact(needed); !slices.Equal(names(), needed) {
		t.Errorf("it asks for %v,\nthe script needs %v", names(), needed)
	}
}

// as opens a store as a user with the given rules.
func as(t *testing.T, server *redistest.Server, opts Options, rules ...string) *Store {
	t.Helper()
	args := []any{"acl", "setuser", "ration", "reset", "on", ">secret"}
	for _, r := range rules {
		args = append(args, r)
	}
	if err := server.Client(t).Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	opts.URL = "redis://ration:secret@" + server.Addr
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Ready names the permission, or the pattern of keys, that is missing.
func TestReadyNamesWhatIsMissing(t *testing.T) {
	server := redistest.Start(t)
	all := []string{"~ration:*", "&ration:*", "+script|load"}
	for _, name := range names() {
		all = append(all, "+"+name)
	}
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(rule string) bool { return slices.Contains(names, rule) })
	}
	type test struct {
		opts  Options
		rules []string
		wants string // the end of the error; empty: it is ready
	}
	cases := map[string]test{
		"all that is documented": {rules: all},
		"everything":             {rules: []string{"~*", "&*", "+@all"}},
		"without script|load":    {rules: without("+script|load")},
		"several":                {rules: without("+zadd", "+get"), wants: "it needs +get +zadd"},
		"no keys":                {rules: without("~ration:*"), wants: "it needs ~ration:*"},
		"other keys":             {rules: append(without("~ration:*"), "~other:*"), wants: "it needs ~ration:*"},
		"keys for reading only":  {rules: append(without("~ration:*"), "%R~ration:*"), wants: "it needs ~ration:*"},
		"another prefix":         {opts: Options{KeyPrefix: "eu-"}, rules: all, wants: "it needs ~eu-ration:*"},
		"its prefix":             {opts: Options{KeyPrefix: "eu-"}, rules: append(without("~ration:*"), "~eu-ration:*", "&eu-ration:*")},
		"no channels":            {rules: without("&ration:*"), wants: "it needs +publish +subscribe, and &ration:* for its channels"},
		"it waits for replicas":  {opts: Options{WaitReplicas: 1}, rules: all, wants: "it needs +wait"},
		"it may wait":            {opts: Options{WaitReplicas: 1}, rules: append(without(), "+wait"), wants: "of which there are 0"},
		"it may not run scripts": {rules: without("+eval", "+evalsha"), wants: "'evalsha' command"},
		"it may not load them":   {rules: without("+eval"), wants: "it needs +eval"},
		"no clock":               {rules: without("+time"), wants: "can't run this command or subcommand"},
	}
	for _, name := range names() {
		switch name {
		case "eval", "evalsha", "time": // see above
		case "publish", "subscribe":
			cases[name] = test{rules: without("+" + name), wants: "it needs +" + name + ", and &ration:* for its channels"}
		default:
			cases[name] = test{rules: without("+" + name), wants: "it needs +" + name}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := as(t, server, c.opts, c.rules...)
			for range 2 { // the second one finds the script there
				err := s.Ready(t.Context())
				switch {
				case c.wants == "":
					if err != nil {
						t.Errorf("it is not ready: %v", err)
					}
				case !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), c.wants) || strings.Contains(err.Error(), "\n"):
					t.Errorf("the error is %v, want one that holds %q", err, c.wants)
				}
			}
		})
	}
}

// In a Cluster each node has users of its own. Those that lack something are named, though others decide.
func TestPermissionsInACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s, err := New(Options{URL: "redis-cluster://" + nodes[0].Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if all := strings.Join(s.Warnings(t.Context()), "\n"); strings.Contains(all, "decides nothing") {
		t.Fatalf("it warns of %s", all)
	}
	for i, node := range nodes {
		if err := node.Client(t).Do(t.Context(), "acl", "setuser", "default", "-zadd").Err(); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(s.Warnings(t.Context()), "\n"); !strings.Contains(all, node.Addr+" decides nothing") || strings.Count(all, "needs +zadd") != i+1 {
			t.Errorf("of %d nodes without a permission it warns:\n%s", i+1, all)
		}
		if err := s.Ready(t.Context()); (err != nil) != (i == len(nodes)-1) {
			t.Errorf("with %d of %d nodes: %v", len(nodes)-i-1, len(nodes), err)
		}
	}
}

// A command that is not permitted damages no counter: the error says what it is.
func TestNotPermittedIsNotCorrupt(t *testing.T) {
	server := redistest.Start(t)
	window := limit.Spec{Algorithm: limit.FixedWindow, Limit: 5, Window: limit.Second * 3600}
	log := window
	log.Algorithm = limit.SlidingLog
	for name, c := range map[string]struct {
		may string
		ops []store.Op
	}{
		"a rate_limit rule":        {"+get", []store.Op{{Bucket: []byte("a"), Spec: window, Manner: limit.Plain, Amount: 1}}},
		"a limit":                  {"+incrby", []store.Op{{Bucket: []byte("b"), Owner: []byte("o"), Spec: window, Manner: limit.Strict, Amount: 1}}},
		"a log":                    {"+get", []store.Op{{Bucket: []byte("c"), Owner: []byte("o"), Spec: log, Manner: limit.Strict, Amount: 1}}},
		"a rule beside a limit":    {"+incrby", []store.Op{{Bucket: []byte("d"), Spec: window, Manner: limit.Plain, Amount: 1}, {Bucket: []byte("e"), Owner: []byte("o"), Spec: window, Manner: limit.Strict, Amount: 1}}},
		"keys that it may not see": {"+@all", []store.Op{{Bucket: []byte("f"), Spec: window, Manner: limit.Plain, Amount: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			pattern := "~ration:*"
			if c.may == "+@all" {
				pattern = "~other:*"
			}
			s := as(t, server, Options{}, pattern, "+eval", "+evalsha", "+time", c.may)
			var out store.Outcome
			err := s.Apply(context.Background(), &store.Step{Ops: c.ops}, &out)
			if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrCorrupt) ||
				!strings.Contains(err.Error(), "can't run this command") && !strings.Contains(err.Error(), "no permissions to access") {
				t.Errorf("the error is %v, want one that says that it is not permitted", err)
			}
		})
	}
}

// Who may not say that there are events decides all the same, and keeps them.
func TestToldWithoutNotice(t *testing.T) {
	server := redistest.Start(t)
	for i, rules := range [][]string{{"~*", "&*", "+@all", "-publish"}, {"~*", "resetchannels", "+@all"}} {
		s := as(t, server, Options{KeyPrefix: fmt.Sprint(i, ":")}, rules...)
		op := store.Op{
			Bucket: []byte("b"), Spec: limit.Spec{Limit: 10, Window: limit.Second * 3600}, Manner: limit.Strict, Amount: 9,
			Thresholds: []int64{5, 8},
		}
		if err := s.Apply(t.Context(), &store.Step{Ops: []store.Op{op}}, &store.Outcome{}); err != nil {
			t.Error(err)
		}
		events, err := s.Undelivered(t.Context())
		if err != nil || len(events) != 2 {
			t.Errorf("with %q: %+v, %v, want two events", rules, events, err)
		}
	}
}
