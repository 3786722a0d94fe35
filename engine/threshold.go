package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// What is used of a limit with warn_at is watched by the store, which keeps an event where a threshold is crossed. It knows
// nothing of what it counts: whatever is to be said of the event goes with each op as a label, so that any process can say
// it later, also by another policy.

// labelVersion is the first byte of a label. One that is not known is not read.
const labelVersion = 1

const (
	// longestLabelText and longestLabelOwner bound the parts of a label, in bytes: in all it has store.MaxLabel at most.
	longestLabelText  = 512
	longestLabelOwner = 1024
)

// watch lets the store tell of what crosses a threshold of the limit.
func (s *scratch) watch(op *store.Op, o *opening) {
	if o.limit.Shadow {
		return // it warns nobody
	}
	due, shares := o.quantity.Warnings(), o.quantity.WarningShares()
	for len(due) > 0 && due[len(due)-1] >= limit.MaxAmount {
		due, shares = due[:len(due)-1], shares[:len(shares)-1] // nothing is ever above the largest amount
	}
	for len(due) > 0 && (due[0] <= 0 || len(due) > store.MaxThresholds) {
		due, shares = due[1:], shares[1:]
	}
	if len(due) == 0 {
		return
	}
	from := len(s.labels)
	s.labels = appendLabel(s.labels, o, shares)
	op.Thresholds, op.Label = due, s.labels[from:len(s.labels):len(s.labels)]
}

// appendLabel appends what is to be known of the events of a limit. Different limits, and whose, have different labels.
func appendLabel(b []byte, o *opening, shares []policy.Share) []byte {
	zone := o.zone
	if zone == nil {
		zone = o.quantity.Zone()
	}
	texts := [...]string{o.limit.Domain, o.limit.Path, o.limit.TierName(o.tier), zone.String()}
	var flags byte
	for _, text := range texts {
		if len(text) > longestLabelText {
			flags = 1
		}
	}
	if len(o.match.Owner) > longestLabelOwner {
		flags = 1
	}
	b = append(b, labelVersion, flags)
	for _, text := range texts {
		b = appendBounded(b, text, longestLabelText)
	}
	b = appendBounded(b, o.match.Owner, longestLabelOwner)
	b = append(b, byte(o.limit.Meter), calendarOf(o.quantity))
	b = binary.AppendVarint(b, int64(o.quantity.Spec.Window))
	b = binary.AppendVarint(b, o.quantity.Spec.Ceiling())
	b = binary.AppendUvarint(b, uint64(len(shares)))
	for _, share := range shares {
		b = binary.AppendVarint(b, int64(share))
	}
	return b
}

// appendBounded appends a text behind its length; of one that is too long its beginning, and a hash of it all.
func appendBounded[text string | []byte](b []byte, s text, longest int) []byte {
	if len(s) <= longest {
		b = binary.AppendUvarint(b, uint64(len(s)))
		return append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(longest))
	b = append(b, s[:longest-8]...)
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64String(string(s)))
}

// noCalendar stands for the period of a quantity without a calendar.
const noCalendar = 0xff

func calendarOf(q *policy.Quantity) byte {
	if q.Spec.Calendar == nil {
		return noCalendar
	}
	return byte(q.Spec.Calendar.Period)
}

// label is what is known of the events of a limit.
type label struct {
	clipped                   bool
	domain, limit, tier, zone string
	owner                     string
	meter                     policy.Meter
	quota                     string // "Monthly budget"
	ceiling                   int64
	shares                    []policy.Share
}

var errLabel = errors.New("the event was left by another version of ration, whose label this one cannot read")

// readLabel reads what appendLabel has written.
func readLabel(b []byte) (l label, err error) {
	r := noteReader{rest: b}
	if r.byte() != labelVersion {
		return label{}, errLabel
	}
	l.clipped = r.byte()&1 != 0
	l.domain, l.limit, l.tier, l.zone = r.text(), r.text(), r.text(), r.text()
	l.owner = r.text()
	meter, calendar := r.byte(), r.byte()
	var q policy.Quantity
	q.Spec.Window = limit.Micros(r.number())
	if l.ceiling = r.number(); calendar != noCalendar {
		q.Spec.Calendar = &limit.Calendar{Period: limit.Period(calendar)}
	}
	for range r.count() {
		l.shares = append(l.shares, policy.Share(r.number()))
	}
	known := policy.Meter(meter) <= policy.InFlight && (calendar == noCalendar || limit.Period(calendar) <= limit.PerYear)
	if r.broken || len(r.rest) > 0 || !known {
		return label{}, errLabel
	}
	l.meter = policy.Meter(meter)
	l.quota = q.Quota(l.meter)
	return l, nil
}

// thresholdEvent says what an event of the store is about. Of one whose label cannot be read only the figures are known.
func thresholdEvent(of *store.Event) events.Event {
	e := events.Event{
		ID: of.ID, Kind: events.Threshold, At: of.At, Used: of.Used, Capacity: of.Limit, ResetsAt: of.End,
		Percent: percentOf(of.Threshold, of.Limit), Message: "A threshold was crossed, of a limit that another version of ration has watched.",
	}
	l, err := readLabel(of.Label)
	if err != nil {
		return e
	}
	e.Domain, e.Limit, e.Clipped, e.Capacity = l.domain, l.limit, l.clipped, l.ceiling
	e.Path = policy.ReadOwner([]byte(l.owner))
	if of.Which >= 0 && of.Which < len(l.shares) {
		e.Percent = int32(l.shares[of.Which] / (policy.Whole / 100))
	}
	e.Message = l.words(of)
	return e
}

// words says to a person what was crossed: "You have used 80 % of your monthly budget of $50.00: $40.12. It resets on
// 1 December (Europe/Berlin)."
func (l *label) words(of *store.Event) string {
	text := fmt.Sprintf("You have used %d %% of your %s of %s: %s.", percentOf(of.Used, l.ceiling), withinSentence(l.quota),
		l.meter.Amount(l.ceiling), l.meter.Number(of.Used))
	zone, err := time.LoadLocation(l.zone)
	if err != nil {
		zone = time.UTC // it has gone since
	}
	if of.End > of.At {
		text += fmt.Sprintf(" It resets %s.", instantWordsIn(of.At, of.End, zone))
	}
	return text
}

// instantWordsIn is instantWords, with the time zone in any case: who reads of an event is not where it happened.
func instantWordsIn(now, then limit.Micros, zone *time.Location) string {
	words := instantWords(now, then, zone)
	if !strings.HasSuffix(words, ")") {
		words += fmt.Sprintf(" (%s)", zone)
	}
	return words
}

// percentOf returns what part of most an amount is, in percent, rounded down.
func percentOf(amount, most int64) int32 {
	if most <= 0 || amount <= 0 {
		return 0
	}
	return int32(min(amount*100/most, math.MaxInt32)) // amounts are below 2^53
}
