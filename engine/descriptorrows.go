package engine

import (
	"context"
	"fmt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// What requests over Envoy's protocol add to the rows of usage.

// reportDescriptors adds to the step what a request of descriptors adds to the rows: itself where it asks to be let through,
// of what it holds the prompt, and what it reports. A prompt that was held is in the rows with the lease, as that of a call
// which is told of as a whole, so that it stays there if nobody settles it; but only in those of the first subject.
func (s *scratch) reportDescriptors(domain *policy.Domain, d *Decision, total *demand, begun part) {
	used := &total.record
	s.tells = *used != usage{}
	now := part{limit.At(s.now), d.tierName(), s.model()}
	one := added(total.charge.amounts[requests]+used.amounts[requests], price.Usage{}, 0)
	reported := added(0, used.reported(), price.Nanos(used.amounts[money]))
	lease := s.step.Lease
	switch {
	case lease != nil && lease.Do == store.LeaseSettle:
		if begun.at == 0 {
			begun = now
		}
		s.reportSettled(domain, begun, now.model, &reported)
	case lease != nil && lease.Do == store.LeaseOpen && total.hold.asked != 0:
		prompt := added(0, stays(total.hold.reported()), price.Nanos(total.hold.moneyBefore))
		s.reportCall(domain, now, &prompt, &addition{})
		s.note = now.append(s.note[:0])
		lease.Note = s.note
		one.addColumns(&reported)
	default:
		one.addColumns(&reported)
	}
	s.report(domain, now, &one)
}

// reportSettled makes what a lease has added to the rows what was really used.
func (s *scratch) reportSettled(domain *policy.Domain, begun part, served string, used *addition) {
	if begun.model == served {
		s.reportCall(domain, begun, used, used)
		return
	}
	s.reportCall(domain, begun, &addition{}, &addition{})
	begun.model = served
	s.report(domain, begun, used)
}

// reported returns the tokens that u names, those of no known class as input.
func (u *usage) reported() price.Usage {
	return price.Usage{
		Input:     limit.Add(u.amounts[inputTokens], u.amounts[tokens]),
		CacheRead: u.amounts[cacheRead], CacheWrite: u.amounts[cacheWrite], Output: u.amounts[outputTokens],
	}
}

func (a *addition) addColumns(more *addition) {
	for column := range more {
		a[column] = store.AddSigned(a[column], more[column])
	}
}

// partVersion is the first byte of what a lease of descriptors has for a note: the part of the rows that its prompt is in.
// It is that of no other note.
const partVersion = 0x80

func (p *part) append(b []byte) []byte {
	b = appendNumber(append(b, partVersion), int64(p.at))
	return appendText(appendText(b, p.tier), p.model)
}

func readPart(b []byte) (p part, ok bool) {
	r := noteReader{rest: b}
	if r.byte() != partVersion {
		return part{}, false
	}
	p = part{limit.Micros(r.number()), r.text(), r.text()}
	return p, !r.broken && len(r.rest) == 0
}

// remember keeps where the prompt is of a lease that the step has opened: mostly it is settled here.
func (e *Engine) remember(s *scratch) {
	if l := s.step.Lease; l != nil && len(l.Note) > 0 && s.outcome.Lease == store.LeaseOpened {
		e.parts.Add(l.ID, string(l.Note))
	}
}

// begun returns in which part of the rows the prompt of a lease is: as this process remembers it, or the store. It is not
// known where neither can say, and of what was not reserved. noAnswer is why, if the store was silent.
func (e *Engine) begun(ctx context.Context, id store.LeaseID) (p part, known bool, noAnswer error) {
	if b, ok := e.parts.Get(id); ok {
		e.parts.Remove(id)
		p, known = readPart([]byte(b))
		return p, known, nil
	}
	look := e.scratch.Get().(*scratch)
	defer e.release(look)
	look.leased = store.Lease{ID: id, Do: store.LeaseLook}
	look.beginStep()
	look.step.Lease = &look.leased
	look.waits = e.backlog != nil // time has to be left to say that the report does
	switch err := e.apply(ctx, look, &Decision{}); {
	case err == nil:
		p, known = readPart(look.outcome.Note)
	case silent(err):
		noAnswer = fmt.Errorf("%w: %w", errNotPut, err)
	}
	return p, known, noAnswer
}
