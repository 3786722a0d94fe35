package policy

import (
	"fmt"
	"slices"

	"github.com/rationhq/ration/limit"
)

// Lane is a line in which calls wait for what all of its callers share: its own limits, and those of an upstream. It
// says who may try next, and no more: what a call is admitted by are limits. All fields are for reading only.
type Lane struct {
	// Name is what the policy calls the lane, once in a domain, and callers name it by.
	Name string
	// Domain is the name of the domain that the lane belongs to.
	Domain string
	// Path names the lane in metrics, listings and logs: DOMAIN.lanes.NAME.
	Path string

	// Upstream is whose limits the lane's callers wait for; nil: none.
	Upstream *Upstream
	// Drain is how fast the lane lets calls through, a token bucket of requests with a burst of 1, and Places how many
	// may be under way, a concurrency; nil: however many. Both are shared by all callers of the lane, and stand among
	// the limits of the domain.
	Drain, Places *Limit

	// MaxWait is how long a call waits at most, [MaxLaneWait] at most.
	MaxWait limit.Micros
	// MaxWaiting is how many calls wait at most, 1…[MaxLaneWaiting], and MaxWaitingPerSubject how many of one subject,
	// 1…MaxWaiting.
	MaxWaiting, MaxWaitingPerSubject int

	// Weights are the shares of the tiers, 1…[MaxLaneWeight], by their index in [Domain.Tiers]; nil: the last tier goes
	// before the one before it, and so on.
	Weights []int64
	// Aging is how long a tier with somebody waiting goes without a turn until it has the next one, [MaxLaneWait] at most; 0
	// with Weights.
	Aging limit.Micros
	// TurnsBy is what the subjects of a tier take turns by: Requests, Tokens or Cost.
	TurnsBy Meter

	// File, Line and Column say where the lane stands.
	File         string
	Line, Column int

	limits       []*Limit // Drain and Places, those that there are
	owner        []byte
	tiers        []Tier // of the domain
	asksSubjects bool   // the policy says how subjects wait
}

const (
	// MaxLaneWait is the longest that a call waits in a lane: one hour.
	MaxLaneWait = hour
	// MaxLaneWaiting is how many calls wait in a lane at most.
	MaxLaneWaiting = 10_000
	// MaxLaneTiers is how many tiers a lane puts in order at most.
	MaxLaneTiers = 32
	// MaxLaneName is how long [Lane.Owner] is at most, in bytes: store.MaxLineName.
	MaxLaneName = 4 << 10
	// MaxLaneWeight is the largest weight of a tier in a lane.
	MaxLaneWeight = 1000
)

// What counts where the policy does not say.
const (
	defaultMaxWait    = 30 * limit.Second
	defaultMaxWaiting = 1000
	defaultPerSubject = 20
	defaultAging      = 10 * limit.Second
)

// turnMeters are what subjects may take turns by.
var turnMeters = []Meter{Requests, Tokens, Cost}

// Limits returns the lane's own limits: Drain and Places, those that there are.
func (l *Lane) Limits() []*Limit { return l.limits }

// Match returns the match that a call in the lane has for the lane's own limits, whoever asks.
func (l *Lane) Match() Match { return Match{Limits: l.limits, Owner: l.owner} }

// Owner returns the name under which the line is kept in the store, which is that of the lane's own limits too. No
// other lane has it, of whatever domain, and nothing else that owns limits.
func (l *Lane) Owner() []byte { return l.owner }

// Shares says that all callers of the lane share a limit, so that they wait for it: the lane's own, and those of its
// upstream.
func (l *Lane) Shares(of *Limit) bool {
	return of.lane == l || l.Upstream != nil && of.upstream == l.Upstream
}

// Interval returns the time from one call that Drain lets through to the next, rounded up; 0 without a Drain.
func (l *Lane) Interval() limit.Micros {
	if l.Drain == nil {
		return 0
	}
	s := &l.Drain.any().Spec
	return (s.Window + limit.Micros(s.Limit) - 1) / limit.Micros(s.Limit)
}

func (l *Lane) place() place { return place{l.File, l.Line, l.Column} }

// OfLane says that all share the limit who use a lane.
func (l *Limit) OfLane() bool { return l.lane != nil }

// Lanes returns the lanes of the domain in the order of the files.
func (d *Domain) Lanes() []*Lane { return d.lanes }

// Lane returns the lane of that name, or nil.
func (d *Domain) Lane(name string) *Lane {
	return d.laneWith(func(l *Lane) bool { return l.Name == name })
}

// UnknownLane says that the domain has no lane of a name, and which one may be meant.
func (d *Domain) UnknownLane(name string) string {
	var names []string
	for _, l := range d.lanes {
		names = append(names, l.Name)
	}
	text := fmt.Sprintf("the policy of the domain has no lane %.100q", name)
	if meant := nearest(name, names); meant != "" {
		text += fmt.Sprintf(": did you mean %s?", meant)
	}
	return text
}

// LaneOf returns the lane that is bound to an upstream, of several the first in the order of the files; nil if there is
// none.
func (d *Domain) LaneOf(u *Upstream) *Lane {
	return d.laneWith(func(l *Lane) bool { return u != nil && l.Upstream == u })
}

func (d *Domain) laneWith(has func(l *Lane) bool) *Lane {
	if i := slices.IndexFunc(d.lanes, has); i >= 0 {
		return d.lanes[i]
	}
	return nil
}
