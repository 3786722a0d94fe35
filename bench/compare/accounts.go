package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/bench/internal/loadgen"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// checkAccount reserves and settles a call twice, about a key of its own: the second reservation must find less than the
// first one did, in the end nothing may be held and all that was used must be counted; and a call that is larger than
// every limit must be refused. Rows of usage must say the same, or not be there.
func (e examiner) checkAccount(ctx context.Context, mix loadgen.Mix) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, began := "check-"+rand.Text(), time.Now()
	var ids []string
	var before *rationv1.ReserveResponse
	for range 2 {
		answer, err := e.reserve(ctx, mix, key)
		if err != nil {
			return err
		}
		if answer.GetReservation() == nil {
			return fmt.Errorf("reserve: want a reservation, got %v", answer.GetDecision())
		}
		ids = append(ids, answer.GetReservation().GetId())
		if before != nil && e.counts {
			if err := lessRemains(before.GetDecision(), answer.GetDecision()); err != nil {
				return err
			}
		}
		before = answer
	}
	var after *rationv1.SettleResponse
	for _, id := range ids {
		var err error
		if after, err = e.accounting.Settle(ctx, mix.Settle(id)); err != nil {
			return err
		}
		if after.GetState() != rationv1.State_STATE_SETTLED {
			return fmt.Errorf("settle: got %v", after)
		}
	}
	if !e.counts {
		return nil
	}
	used := 2 * (mix.Account.Used.Input + mix.Account.Used.Output)
	for _, l := range after.GetLimits() {
		if l.GetHeld() != 0 || l.GetUsed() <= 0 || l.GetMeter() == rationv1.Meter_METER_TOKENS && l.GetUsed() != used {
			return fmt.Errorf("settled: %v, want nothing held, and %d tokens used", l, used)
		}
	}
	if err := e.checkRefusal(ctx, mix, key); err != nil {
		return err
	}
	return e.checkRows(ctx, mix, key, used, began)
}

// reserve makes the first call of an exchange.
func (e examiner) reserve(ctx context.Context, mix loadgen.Mix, key string) (*rationv1.ReserveResponse, error) {
	id := rand.Text()[:loadgen.IDLength]
	if mix.Account.Lane != "" {
		question, err := mix.Acquire(key, id)
		if err != nil {
			return nil, err
		}
		return acquire(ctx, e.accounting, question, nil)
	}
	question, err := mix.Reserve(key, id)
	if err != nil {
		return nil, err
	}
	return e.accounting.Reserve(ctx, question)
}

// lessRemains compares what two reservations, one after the other, have found.
func lessRemains(first, second *rationv1.Decision) error {
	if len(first.GetLimits()) == 0 {
		return fmt.Errorf("no limit applies: %v", first)
	}
	was := map[string]int64{}
	for _, l := range first.GetLimits() {
		was[l.GetLimit()] = l.GetRemaining()
	}
	for _, l := range second.GetLimits() {
		if remained, known := was[l.GetLimit()]; !known || l.GetRemaining() >= remained {
			return fmt.Errorf("limit %s: %d remaining after the first reservation and %d after the second: it does not hold",
				l.GetLimit(), remained, l.GetRemaining())
		}
	}
	return nil
}

// checkRefusal asks for more than the policy has.
func (e examiner) checkRefusal(ctx context.Context, mix loadgen.Mix, key string) error {
	question, err := mix.Reserve(key, rand.Text()[:loadgen.IDLength])
	if err != nil {
		return err
	}
	question.Estimate = &rationv1.Estimate{Of: &rationv1.Estimate_Usage{Usage: &rationv1.Usage{OutputTokens: accountLimit + 1}}}
	answer, err := e.accounting.Reserve(ctx, question)
	if err == nil && answer.GetReservation() != nil {
		err = fmt.Errorf("a call of %d tokens was admitted to a limit of %d", accountLimit+1, accountLimit)
	}
	return err
}

// checkRows makes sure that usage is reported where the domain is the one that has rows, and only there.
func (e examiner) checkRows(ctx context.Context, mix loadgen.Mix, key string, used int64, began time.Time) error {
	attribute, _, _ := strings.Cut(mix.Account.Attributes[0], "=")
	answer, err := e.usage.QueryUsage(ctx, &rationv1.QueryUsageRequest{
		Domain: mix.Domain, Subject: attribute + "=" + key, From: timestamppb.New(began.Add(-time.Minute)),
		Resolution: rationv1.Resolution_RESOLUTION_TOTAL,
	})
	switch reported := answer.GetTotal().GetTokens(); {
	case mix.Domain != rowsDomain && reported > 0:
		return fmt.Errorf("domain %s: %d tokens are reported, want no rows of usage", mix.Domain, reported)
	case mix.Domain == rowsDomain && (err != nil || reported != used):
		return fmt.Errorf("domain %s: %d tokens are reported (%w), want %d", mix.Domain, reported, err, used)
	}
	return nil
}
