package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// What bench/policy/policy.yaml says.
const (
	policyDomain = "bench"
	highLimit    = 4_000_000_000 // per hour, of all descriptors under load
	probeLimit   = 3             // per day, of the descriptor "probe"
)

// checkAnswers makes sure that the server at addr is worth measuring: that it answers, and, if it counts, that its
// answers show that it has the benchmark's policy and enforces it.
func checkAnswers(ctx context.Context, addr string, counts bool) error {
	connection, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	service := rlsv3.NewRateLimitServiceClient(connection)
	check := func() error {
		return errors.Join(
			checkLoad(ctx, service, counts, 1),
			checkLoad(ctx, service, counts, 3),
			checkProbe(ctx, service, counts),
		)
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

// checkLoad asks twice for what will be asked under load, about a key of its own.
func checkLoad(ctx context.Context, service rlsv3.RateLimitServiceClient, counts bool, descriptors int) error {
	templates, err := loadgen.DefaultDescriptors(descriptors)
	if err != nil {
		return err
	}
	mix := loadgen.Mix{Domain: policyDomain, Descriptors: templates}
	question, err := mix.Message("check-" + rand.Text())
	if err != nil {
		return err
	}
	var before *rlsv3.RateLimitResponse
	for range 2 {
		answer, err := ask(ctx, service, question)
		if err != nil {
			return err
		}
		if answer.OverallCode != rlsv3.RateLimitResponse_OK {
			return fmt.Errorf("%d descriptors: want OK, got %v", descriptors, answer)
		}
		if !counts {
			continue
		}
		if len(answer.Statuses) != descriptors {
			return fmt.Errorf("%d descriptors: got %d statuses", descriptors, len(answer.Statuses))
		}
		for i, status := range answer.Statuses {
			limit := status.CurrentLimit
			if status.Code != rlsv3.RateLimitResponse_OK || limit.GetRequestsPerUnit() != highLimit ||
				limit.GetUnit() != rlsv3.RateLimitResponse_RateLimit_HOUR {
				return fmt.Errorf("descriptor %q: want OK with a limit of %d per hour, got %v", templates[i], highLimit, status)
			}
			if before != nil && status.LimitRemaining >= before.Statuses[i].LimitRemaining {
				return fmt.Errorf("descriptor %q: %d remaining after the first call and %d after the second: it does not count",
					templates[i], before.Statuses[i].LimitRemaining, status.LimitRemaining)
			}
		}
		before = answer
	}
	return nil
}

// checkProbe uses up the policy's low limit: the call after the last must be refused.
func checkProbe(ctx context.Context, service rlsv3.RateLimitServiceClient, counts bool) error {
	if !counts {
		return nil
	}
	question := &rlsv3.RateLimitRequest{Domain: policyDomain, Descriptors: []*commonv3.RateLimitDescriptor{
		{Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "probe", Value: rand.Text()}}},
	}}
	var codes []string
	for range probeLimit + 1 {
		answer, err := ask(ctx, service, question)
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
