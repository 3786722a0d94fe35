package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// broken is a step that breaks the contract, beside an op that does not.
type broken struct {
	lease *store.Lease
	op    store.Op
	cause error
}

// testBroken: such steps are refused with their cause, and nothing of them is written.
func testBroken(t *testing.T, s store.Store, good store.Op, cases map[string]broken) {
	t.Helper()
	for name, c := range cases {
		var out store.Outcome
		beside := good
		if c.lease != nil && c.lease.Do == store.LeaseRenew {
			beside.Amount = 0 // else that would be what breaks it
		}
		step := &store.Step{Ops: ops(beside, c.op), Lease: c.lease}
		if err := s.Apply(context.Background(), step, &out); !errors.Is(err, c.cause) {
			t.Errorf("%s: error %v, want %v", name, err, c.cause)
		}
	}
	good.Amount = 0
	if got := apply(t, s, good).Results[0].Used; got != 0 {
		t.Errorf("%d were counted by steps that break the contract", got)
	}
}

func testPlainInvalid(t *testing.T, open Open) {
	five := perMinute(5)
	testBroken(t, open(t, NewClock(noon)), charge("good", five, 1), map[string]broken{
		"no name":          {nil, charge("", five, 1), store.ErrInvalid},
		"too long a name":  {nil, charge(strings.Repeat("k", store.MaxBucketName+1), five, 1), store.ErrInvalid},
		"no window":        {nil, charge("a", limit.Spec{Limit: 1}, 1), store.ErrInvalid},
		"negative window":  {nil, charge("a", limit.Spec{Limit: 1, Window: -1}, 1), store.ErrInvalid},
		"negative limit":   {nil, charge("a", perMinute(-1), 1), store.ErrInvalid},
		"limit of 2^53":    {nil, charge("a", perMinute(limit.MaxAmount+1), 1), store.ErrInvalid},
		"negative amount":  {nil, charge("a", five, -1), store.ErrInvalid},
		"amount of 2^53":   {nil, charge("a", five, limit.MaxAmount+1), store.ErrInvalid},
		"an unknown thing": {nil, with(charge("a", five, 1), func(o *store.Op) { o.Kind = 200 }), store.ErrUnsupported},
	})
}

func testInvalid(t *testing.T, open Open) {
	five := perMinute(5)
	plain := func(kind store.Kind, spec limit.Spec) store.Op {
		return with(charge("a", spec, 1), func(o *store.Op) { o.Kind = kind })
	}
	lasting := func(d limit.Micros) *store.Lease {
		return &store.Lease{ID: id(1), Do: store.LeaseOpen, Lasts: d}
	}
	renewing := func(d limit.Micros) *store.Lease {
		return &store.Lease{ID: id(1), Do: store.LeaseRenew, Lasts: d}
	}
	ok, check := strict("a", five, 1), strict("a", five, 0)
	bucket := limit.Spec{Algorithm: limit.TokenBucket, Window: minute}
	log := limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog + 1, Window: minute}
	places := limit.Spec{Algorithm: limit.Concurrency, Window: minute}
	rate, room := limit.Spec{Algorithm: limit.TokenBucket, Limit: 9, Burst: 9, Window: minute}, limit.Spec{Algorithm: limit.Concurrency, Limit: 9}
	cases := map[string]broken{
		"a hold without a lease":        {nil, holding("a", five, 1, 0), store.ErrInvalid},
		"a hold while settling":         {settles(1, 1), holding("a", five, 1, 0), store.ErrInvalid},
		"a hold while lapsing":          {lapses(1), holding("a", five, 1, 0), store.ErrInvalid},
		"a hold that lapses to more":    {opens(1, 1), holding("a", five, 1, 2), store.ErrInvalid},
		"a hold that lapses to less":    {opens(1, 1), holding("a", five, 1, -1), store.ErrInvalid},
		"to settle without a lease":     {nil, of(store.Settle, ok), store.ErrInvalid},
		"to settle while opening":       {opens(1, 1), of(store.Settle, ok), store.ErrInvalid},
		"a lease of no time":            {lasting(0), ok, store.ErrInvalid},
		"a lease of a negative time":    {lasting(-1), ok, store.ErrInvalid},
		"a lease of more than an hour":  {lasting(store.MaxLease + 1), ok, store.ErrInvalid},
		"too long a note":               {&store.Lease{ID: id(1), Lasts: 1, Note: make([]byte, store.MaxNote+1)}, ok, store.ErrInvalid},
		"an unknown end of a lease":     {&store.Lease{ID: id(1), Do: 7}, ok, store.ErrInvalid},
		"negative usage":                {settles(1, 1, 0, -2), ok, store.ErrInvalid},
		"usage of 2^53":                 {settles(1, 1, limit.MaxAmount+1), ok, store.ErrInvalid},
		"a hold while renewing":         {renews(1), holding("a", five, 1, 0), store.ErrInvalid},
		"to settle while renewing":      {renews(1), of(store.Settle, ok), store.ErrInvalid},
		"a charge while renewing":       {renews(1), ok, store.ErrInvalid},
		"a plain one while renewing":    {renews(1), charge("a", five, 1), store.ErrInvalid},
		"a give-back while renewing":    {renews(1), of(store.GiveBack, ok), store.ErrInvalid},
		"a record while renewing":       {renews(1), of(store.Record, ok), store.ErrInvalid},
		"a renewal of no time":          {renewing(0), check, store.ErrInvalid},
		"a renewal of a negative time":  {renewing(-1), check, store.ErrInvalid},
		"a renewal for over an hour":    {renewing(store.MaxLease + 1), check, store.ErrInvalid},
		"renewed by negative usage":     {renews(1, -2), check, store.ErrInvalid},
		"a plain hold":                  {opens(1, 1), plain(store.Hold, five), store.ErrInvalid},
		"a plain record":                {nil, plain(store.Record, five), store.ErrInvalid},
		"a plain depletion":             {nil, plain(store.Deplete, five), store.ErrInvalid},
		"a depletion while renewing":    {renews(1), of(store.Deplete, check), store.ErrInvalid},
		"a depletion of places":         {nil, of(store.Deplete, strict("a", room, 1)), store.ErrInvalid},
		"a depletion by less than none": {nil, of(store.Deplete, strict("a", five, -1)), store.ErrInvalid},
		"depleted for a negative time":  {nil, with(of(store.Deplete, ok), func(o *store.Op) { o.Wait = -1 }), store.ErrInvalid},
		"depleted for 2^53 µs": {nil, with(of(store.Deplete, ok), func(o *store.Op) {
			o.Wait = limit.Micros(limit.MaxAmount + 1)
		}), store.ErrInvalid},
		"a plain token bucket":          {nil, plain(store.Charge, bucket), store.ErrInvalid},
		"a plain window of first use":   {nil, plain(store.Charge, limit.Spec{FirstUse: true, Window: minute}), store.ErrInvalid},
		"an unknown algorithm":          {nil, strict("a", limit.Spec{Algorithm: 99, Window: minute}, 1), store.ErrInvalid},
		"concurrency with a window":     {nil, strict("a", places, 1), store.ErrInvalid},
		"a calendar without one":        {nil, strict("a", limit.Spec{Algorithm: limit.CalendarWindow}, 1), store.ErrInvalid},
		"too long a log":                {nil, strict("a", log, 1), store.ErrInvalid},
		"a negative burst":              {nil, with(strict("a", bucket, 1), func(o *store.Op) { o.Spec.Burst = -1 }), store.ErrInvalid},
		"a negative headroom":           {nil, strict("a", limit.Spec{Headroom: -1, Window: minute}, 1), store.ErrInvalid},
		"a threshold of nothing":        {nil, warns(ok, 0, 5), store.ErrInvalid},
		"a negative threshold":          {nil, warns(ok, -1), store.ErrInvalid},
		"a threshold that none reaches": {nil, warns(ok, limit.MaxAmount), store.ErrInvalid},
		"a threshold twice":             {nil, warns(ok, 5, 5), store.ErrInvalid},
		"thresholds that descend":       {nil, warns(ok, 5, 8, 7), store.ErrInvalid},
		"too many thresholds":           {nil, warns(ok, upTo(store.MaxThresholds+1)...), store.ErrInvalid},
		"thresholds of a plain one":     {nil, warns(charge("a", five, 1), 5), store.ErrInvalid},
		"thresholds of a token bucket":  {nil, warns(strict("a", rate, 1), 5), store.ErrInvalid},
		"thresholds of places":          {nil, warns(strict("a", room, 1), 5), store.ErrInvalid},
		"too long a label": {nil, with(warns(ok, 5), func(o *store.Op) {
			o.Label = make([]byte, store.MaxLabel+1)
		}), store.ErrInvalid},
		"too long an owner": {nil, with(ok, func(o *store.Op) {
			o.Owner = []byte(strings.Repeat("o", store.MaxBucketName))
		}), store.ErrInvalid},
	}
	s := open(t, NewClock(noon))
	testBroken(t, s, strict("good", five, 1), cases)
	if out := applyStep(t, s, &store.Step{Lease: lapses(1)}); out.Lease != store.LeaseUnknown {
		t.Errorf("a step that breaks the contract has left a lease: state %d", out.Lease)
	}
}

func testDeadline(t *testing.T, open Open) {
	s := open(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out store.Outcome
	one := charge("a", perMinute(5), 1)
	if err := s.Apply(ctx, &store.Step{Ops: ops(one)}, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v, want %v", err, context.Canceled)
	}
	now := apply(t, s, charge("a", perMinute(5), 0))
	if now.Results[0].Used != 0 {
		t.Errorf("with a cancelled context %d were counted", now.Results[0].Used)
	}
	if off := time.Until(now.Now.Time()).Abs(); off > time.Minute {
		t.Errorf("the store's own clock is off by %v", off)
	}
}
