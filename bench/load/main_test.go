package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/rationhq/ration/bench/internal/floor"
	"github.com/rationhq/ration/bench/internal/loadgen"
)

func parse(t *testing.T, args ...string) (options, error) {
	t.Helper()
	var opts options
	parser, err := kong.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return opts, err
}

func TestFlagsBecomeAPlan(t *testing.T) {
	common := loadgen.Plan{
		Mix:         loadgen.Mix{Domain: "bench", Descriptors: []string{"client={key}"}, Keys: 10_000},
		MaxInFlight: 512, Tick: 250 * time.Microsecond, Warmup: time.Second, Duration: 5 * time.Second, Seed: 1,
	}
	tests := []struct {
		flags string
		want  func(*loadgen.Plan)
	}{
		{"--callers 16", func(p *loadgen.Plan) { p.Callers = 16 }},
		{"--rate 5000 --max-in-flight 9 --tick 1ms --requests 7", func(p *loadgen.Plan) {
			p.Rate, p.MaxInFlight, p.Tick, p.MaxRequests = 5000, 9, time.Millisecond, 7
		}},
		{"--callers 1 --descriptors 2 --keys 5", func(p *loadgen.Plan) {
			p.Callers, p.Keys, p.Descriptors = 1, 5, []string{"client={key}", "client={key},path=/v1/chat"}
		}},
		{"--callers 1 --domain shop --descriptor user={key},path=/a --descriptor path=/a", func(p *loadgen.Plan) {
			p.Callers, p.Domain, p.Descriptors = 1, "shop", []string{"user={key},path=/a", "path=/a"}
		}},
		{"--callers 1 --descriptor u={key},r={id} --then u={key},r={id},end=1", func(p *loadgen.Plan) {
			p.Callers, p.Descriptors, p.Then = 1, []string{"u={key},r={id}"}, []string{"u={key},r={id},end=1"}
		}},
		{"--callers 1 --hot-keys 1", func(p *loadgen.Plan) { p.Callers, p.HotKeys, p.HotShare = 1, 1, 1 }},
		{"--callers 1 --hot-keys 3 --hot-share 0.9", func(p *loadgen.Plan) { p.Callers, p.HotKeys, p.HotShare = 1, 3, 0.9 }},
	}
	for _, test := range tests {
		opts, err := parse(t, append(strings.Fields(test.flags), "127.0.0.1:1")...)
		if err != nil {
			t.Errorf("%s: %v", test.flags, err)
			continue
		}
		want := common
		test.want(&want)
		if got, err := opts.plan(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.flags, got, err, want)
		}
	}
}

func TestFlagsThatContradictEachOther(t *testing.T) {
	for _, flags := range []string{"--callers 1 --rate 5", "--callers 1 --redis a --redis-pid 1", "--callers 1 --format xml"} {
		if _, err := parse(t, append(strings.Fields(flags), "127.0.0.1:1")...); err == nil {
			t.Errorf("%s: no error", flags)
		}
	}
	opts, err := parse(t, "--callers", "1", "--descriptors", "4", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opts.plan(); err == nil {
		t.Error("4 descriptors: no error")
	}
}

func TestRunAgainstTheFloor(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- floor.Serve(ctx, listener) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	// The floor serves in this process, so its id stands for the server.
	opts, err := parse(t, "--callers", "4", "--requests", "500", "--duration", "1m", "--warmup", "0",
		"--pid", strconv.Itoa(os.Getpid()), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	report, err := run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := write(&out, report, "json"); err != nil {
		t.Fatal(err)
	}
	var got loadgen.Report
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.OK != 500 || got.Errors != 0 || got.ServerCPU == nil || got.RedisCPU != nil || got.Callers != 4 {
		t.Errorf("got %s", &out)
	}
	out.Reset()
	if err := write(&out, report, "text"); err != nil || !strings.Contains(out.String(), "500 OK") {
		t.Errorf("got %s, %v", &out, err)
	}
}
