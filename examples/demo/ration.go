package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// domain of policy.yaml.
const domain = "llm"

// ration is what ration tells of its users.
type ration struct {
	conn  *grpc.ClientConn
	usage rationv1.UsageServiceClient
	began time.Time

	mu      sync.Mutex
	events  []event
	history []snapshot // of the last seconds
}

// snapshot is how the users stood at a time.
type snapshot struct {
	at    time.Time
	users []user
}

// state is what is known of all users at one time.
type state struct {
	elapsed time.Duration
	ending  bool // no call begins any more
	users   []user
	// events are the last of each kind, in the order in which the first of the kind came.
	events []event
	// trouble is what the demo did not expect; empty: nothing.
	trouble string
}

// user is how a user stands, by ration's account.
type user struct {
	name, tier           string
	served, refused      int64
	throttled, exhausted int64 // those refused for now, and those refused until a new period begins
	tokens               int64
	inFlight             int64
	cost, budget         nanos
	now                  mood
}

// mood is what users get of late.
type mood int

const (
	idle mood = iota
	served
	throttled
	exhausted
)

// event is something that ration has told of.
type event struct {
	at      time.Time
	user    string
	refusal bool // otherwise a threshold
	limit   string
	message string
}

func dialRation(addr string) (*ration, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("ration at %s: %w", addr, err)
	}
	return &ration{conn: conn, usage: rationv1.NewUsageServiceClient(conn), began: time.Now()}, nil
}

func (r *ration) close() { _ = r.conn.Close() }

// ask returns how all users stand now.
func (r *ration) ask(ctx context.Context) (state, error) {
	var s state
	counted, err := r.rows(ctx, "subject")
	if err != nil {
		return s, err
	}
	for _, name := range users {
		u := user{name: name}
		for _, row := range counted {
			if row.GetGroup()["subject"] == "user="+name {
				u.served, u.tokens = row.GetRequests(), row.GetTokens()
				u.throttled, u.exhausted = row.GetRefusals()["rate_limited"], row.GetRefusals()["quota_exhausted"]
				for _, n := range row.GetRefusals() {
					u.refused += n
				}
			}
		}
		standing, err := r.usage.GetUsage(ctx, &rationv1.GetUsageRequest{
			Caller: &rationv1.Caller{Domain: domain, Attributes: map[string]string{"user": name}},
		})
		if err != nil {
			return s, err
		}
		u.tier = standing.GetTier()
		for _, l := range standing.GetLimits() {
			switch l.GetStatus().GetMeter() {
			case rationv1.Meter_METER_COST:
				u.cost, u.budget = nanos(l.GetStatus().GetUsed()), nanos(l.GetStatus().GetCapacity())
			case rationv1.Meter_METER_CONCURRENCY:
				u.inFlight = l.GetStatus().GetUsed() + l.GetStatus().GetHeld()
			default: // shown by what they refuse
			}
		}
		s.users = append(s.users, u)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moods(s.users)
	s.events = slices.Clone(r.events)
	return s, nil
}

// moods says what users got in the last seconds.
func (r *ration) moods(all []user) {
	const lately = 8 * time.Second // whoever is exhausted tries again after 5
	r.history = append(r.history, snapshot{time.Now(), slices.Clone(all)})
	for time.Since(r.history[0].at) > lately {
		r.history = r.history[1:]
	}
	for i, before := range r.history[0].users {
		switch u := &all[i]; {
		case u.exhausted > before.exhausted:
			u.now = exhausted
		case u.throttled > before.throttled:
			u.now = throttled
		case u.served > before.served:
			u.now = served
		}
	}
}

// rows returns what was used since the demo began, by the given groups.
func (r *ration) rows(ctx context.Context, by ...string) ([]*rationv1.UsageRow, error) {
	told, err := r.usage.QueryUsage(ctx, &rationv1.QueryUsageRequest{
		Domain: domain, From: timestamppb.New(r.began), Resolution: rationv1.Resolution_RESOLUTION_TOTAL, GroupBy: by,
	})
	return told.GetRows(), err
}

// watch takes events until ctx ends. Should they end before, it fails.
func (r *ration) watch(ctx context.Context, fail context.CancelCauseFunc) error {
	stream, err := r.usage.WatchEvents(ctx, &rationv1.WatchEventsRequest{Domain: domain, Kinds: []string{"threshold", "refusal"}})
	if err == nil {
		_, err = stream.Header() // from here on nothing is missed
	}
	if err != nil {
		return fmt.Errorf("watch ration's events: %w", err)
	}
	go func() {
		for {
			e, err := stream.Recv()
			switch {
			case status.Code(err) == codes.Canceled, status.Code(err) == codes.Unavailable, errors.Is(err, io.EOF):
				return // as ration has ended, which is noticed elsewhere
			case err != nil:
				fail(fmt.Errorf("watch ration's events: %w", err))
				return
			}
			r.note(event{
				at: e.GetTime().AsTime(), user: strings.TrimPrefix(e.GetSubject(), "user="), refusal: e.GetKind() == "refusal",
				limit: e.GetLimit(), message: e.GetMessage(),
			})
		}
	}()
	return nil
}

// note puts an event in the place of the one before of its kind.
func (r *ration) note(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.events, func(o event) bool { return o.user == e.user && o.limit == e.limit && o.refusal == e.refusal })
	if i < 0 {
		r.events = append(r.events, e)
		return
	}
	r.events[i] = e
}
