package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rationhq/ration/bench/internal/loadgen"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// What the policies in bench/policy say.
const (
	plainDomain  = "bench"
	limitsDomain = "limits"
	highLimit    = 4_000_000_000 // per hour, of all descriptors under load in the plain domain
	probeLimit   = 3             // per day, of the descriptor "probe" of both

	accountsDomain = "accounts"      // nothing is kept of usage
	rowsDomain     = "accounts-rows" // rows of usage are
	accountLimit   = 4_000_000_000   // tokens per month, of both and of the next

	lanesDomain = "lanes"
	idleLane    = "idle"    // has more places than anybody takes
	singleLane  = "single"  // has one place
	drainedLane = "drained" // lets drainedRate calls a second through
	drainedRate = 100
)

// An examiner asks a server what shows whether it is worth measuring.
type examiner struct {
	service    rlsv3.RateLimitServiceClient
	accounting rationv1.AccountingServiceClient
	usage      rationv1.UsageServiceClient
	// counts is false for a server of which no more is expected than that it answers OK.
	counts bool
}

// checkAnswers makes sure that the server at addr is worth measuring: that it answers, and, if it counts, that its
// answers to what the scenarios will ask show that it has the benchmark's policies and enforces them.
func checkAnswers(ctx context.Context, addr string, counts bool, asked []scenario) error {
	connection, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	e := examiner{
		service: rlsv3.NewRateLimitServiceClient(connection), accounting: rationv1.NewAccountingServiceClient(connection),
		usage: rationv1.NewUsageServiceClient(connection), counts: counts,
	}
	check := func() error {
		var err error
		for _, mix := range mixes(asked) {
			if mix.Account != nil {
				err = errors.Join(err, e.checkAccount(ctx, mix))
				continue
			}
			err = errors.Join(err, e.checkMix(ctx, mix))
		}
		for _, domain := range []string{plainDomain, limitsDomain} {
			if counts && slices.ContainsFunc(asked, func(s scenario) bool { return s.Mix.Domain == domain }) {
				err = errors.Join(err, e.checkProbe(ctx, domain))
			}
		}
		return err
	}
	if check() == nil {
		return nil
	}
	// A window that ended between two calls looks like a server that does not count. It does not happen twice.
	if err := check(); err != nil {
		return fmt.Errorf("answers wrongly: %w", err)
	}
	return nil
}

// checkMix asks twice for what will be asked under load, about a key of its own: the second time less must remain.
// Where a second call follows, it must set free what the first one took.
func (e examiner) checkMix(ctx context.Context, mix loadgen.Mix) error {
	key := "check-" + rand.Text()
	var ids [3]string
	for i := range ids {
		ids[i] = rand.Text()[:loadgen.IDLength]
	}
	before, err := e.ask(ctx, mix, key, ids[0])
	if err != nil {
		return err
	}
	after, err := e.ask(ctx, mix, key, ids[1])
	if err != nil || !e.counts {
		return err
	}
	for i, status := range after.Statuses {
		if was := before.Statuses[i].LimitRemaining; status.LimitRemaining >= was {
			return fmt.Errorf("descriptor %q: %d remaining after the first call and %d after the second: it does not count",
				mix.Descriptors[i], was, status.LimitRemaining)
		}
	}
	if len(mix.Then) == 0 {
		return nil
	}
	err = errors.Join(e.follow(ctx, mix, key, ids[0]), e.follow(ctx, mix, key, ids[1]))
	if err != nil {
		return err
	}
	again, err := e.ask(ctx, mix, key, ids[2])
	if err != nil {
		return err
	}
	if was, is := after.Statuses[0].LimitRemaining, again.Statuses[0].LimitRemaining; is <= was {
		return fmt.Errorf("descriptor %q: %d remaining in the second call, and %d in a third when both have ended: "+
			"nothing was set free", mix.Descriptors[0], was, is)
	}
	return e.follow(ctx, mix, key, ids[2])
}

// ask makes the first call of an exchange, and looks at the answer by itself.
func (e examiner) ask(ctx context.Context, mix loadgen.Mix, key, id string) (*rlsv3.RateLimitResponse, error) {
	question, _, err := mix.Messages(key, id)
	if err != nil {
		return nil, err
	}
	answer, err := ask(ctx, e.service, question)
	if err != nil {
		return nil, err
	}
	if answer.OverallCode != rlsv3.RateLimitResponse_OK {
		return nil, fmt.Errorf("descriptors %q: want OK, got %v", mix.Descriptors, answer)
	}
	if !e.counts {
		return answer, nil
	}
	if len(answer.Statuses) != len(mix.Descriptors) {
		return nil, fmt.Errorf("%d descriptors: got %d statuses", len(mix.Descriptors), len(answer.Statuses))
	}
	for i, status := range answer.Statuses {
		limit := status.CurrentLimit
		if status.Code != rlsv3.RateLimitResponse_OK || limit == nil {
			return nil, fmt.Errorf("descriptor %q: want OK with a limit, got %v", mix.Descriptors[i], status)
		}
		if mix.Domain == plainDomain &&
			(limit.RequestsPerUnit != highLimit || limit.Unit != rlsv3.RateLimitResponse_RateLimit_HOUR) {
			return nil, fmt.Errorf("descriptor %q: want OK with a limit of %d per hour, got %v",
				mix.Descriptors[i], highLimit, status)
		}
	}
	return answer, nil
}

// follow makes the second call of an exchange.
func (e examiner) follow(ctx context.Context, mix loadgen.Mix, key, id string) error {
	_, question, err := mix.Messages(key, id)
	if err != nil {
		return err
	}
	answer, err := ask(ctx, e.service, question)
	if err != nil {
		return err
	}
	if answer.OverallCode != rlsv3.RateLimitResponse_OK {
		return fmt.Errorf("descriptors %q: want OK, got %v", mix.Then, answer)
	}
	return nil
}

// checkProbe uses up the low limit of a domain: the call after the last must be refused.
func (e examiner) checkProbe(ctx context.Context, domain string) error {
	question := &rlsv3.RateLimitRequest{Domain: domain, Descriptors: []*commonv3.RateLimitDescriptor{
		{Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "probe", Value: rand.Text()}}},
	}}
	var codes []string
	for range probeLimit + 1 {
		answer, err := ask(ctx, e.service, question)
		if err != nil {
			return err
		}
		codes = append(codes, answer.OverallCode.String())
	}
	want := strings.Repeat("OK ", probeLimit) + "OVER_LIMIT"
	if got := strings.Join(codes, " "); got != want {
		return fmt.Errorf("a limit of %d per day: want %s, got %s", probeLimit, want, got)
	}
	return nil
}

func ask(
	ctx context.Context, service rlsv3.RateLimitServiceClient, question *rlsv3.RateLimitRequest,
) (*rlsv3.RateLimitResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return service.ShouldRateLimit(ctx, question)
}
