package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// The reserved entries of a descriptor: what they say is taken out before it is matched.
const (
	reservedPrefix  = "ration."
	reservedMeter   = "ration.meter"
	reservedPhase   = "ration.phase"
	reservedRequest = "ration.request"
	reservedModel   = "ration.model"
	reservedTier    = "ration.tier"
	reservedAPI     = "ration.api"
	reservedLane    = "ration.lane"
)

// KeyEntry is the reserved entry that holds an API key. Whoever shows entries hides its value.
const KeyEntry = reservedPrefix + "key"

// phaseFailed names the phase of a request that has ended since whoever should have served it has failed.
const phaseFailed = "failed"

// phase is where a request stands when its descriptor is sent.
type phase uint8

const (
	admit   phase = iota // it asks to be let through
	hold                 // it reserves what it will probably use
	record               // it reports what it has used
	done                 // it has ended
	fail                 // it has ended, and whoever should have served it has failed
	unknown              // no such phase
)

func phaseNamed(name string) phase {
	switch name {
	case "admit":
		return admit
	case "hold":
		return hold
	case "record":
		return record
	case "done":
		return done
	case phaseFailed:
		return fail
	}
	return unknown
}

// asked is what one descriptor of a request asks for.
type asked struct {
	entries  []policy.Entry // without the reserved ones
	phase    phase
	class    class
	amount   int64
	giveBack bool
	model    string
	tier     string
	request  string
	key      string // an API key
	api      API    // whose client is answered
	costs    bool   // a limit of cost applies to it
}

// isRequest says that the hits count requests.
func (a *asked) isRequest() bool { return a.class == requests && a.phase != hold && !a.isEnd() }

// isEnd says that the hits count nothing: the request has ended.
func (a *asked) isEnd() bool { return a.phase == done || a.phase == fail }

// read finds out what the descriptors of request ask for. It allocates only for errors.
func (s *scratch) read(request *Request) error {
	s.asked, s.entries, s.told, s.wholeCall, s.looks = s.asked[:0], s.entries[:0], s.told[:0], false, false
	for i := range request.Descriptors {
		d := &request.Descriptors[i]
		a := asked{entries: d.Entries, amount: request.amount(d), giveBack: d.GiveBack}
		if reserves(d.Entries) {
			if err := s.readReserved(&a, i); err != nil {
				return err
			}
		}
		s.asked = append(s.asked, a)
	}
	return nil
}

func reserves(entries []policy.Entry) bool {
	for i := range entries {
		if strings.HasPrefix(entries[i].Key, reservedPrefix) {
			return true
		}
	}
	return false
}

// readReserved takes the reserved entries out of a.entries.
func (s *scratch) readReserved(a *asked, descriptor int) error {
	all, from, told := a.entries, len(s.entries), len(s.told)
	for i := range all {
		e := &all[i]
		if !strings.HasPrefix(e.Key, reservedPrefix) {
			s.entries = append(s.entries, *e)
			continue
		}
		if strings.HasPrefix(e.Key, reservedProvider) {
			s.tell(e)
			continue
		}
		if why := a.take(e); why != "" {
			return &InvalidError{Field: fmt.Sprintf("descriptors[%d].entries[%d]", descriptor, i), Reason: why}
		}
	}
	a.entries = s.entries[from:len(s.entries):len(s.entries)]
	if a.phase == hold && (a.request == "" || a.class == requests || a.giveBack) {
		return &InvalidError{
			Field: fmt.Sprintf("descriptors[%d].entries", descriptor),
			Reason: "ration.phase hold reserves tokens for a request: it needs ration.request, the request's id, " +
				"and a ration.meter other than requests, and gives nothing back",
		}
	}
	if a.isEnd() && a.request == "" {
		return &InvalidError{
			Field:  fmt.Sprintf("descriptors[%d].entries", descriptor),
			Reason: "ration.phase done, or failed, ends a request: it needs ration.request, the request's id",
		}
	}
	if len(s.told) > told && a.phase < record {
		return &InvalidError{
			Field:  fmt.Sprintf("descriptors[%d].entries", descriptor),
			Reason: reservedProvider + "… tells what came of a call: it needs ration.phase record, done or failed",
		}
	}
	return nil
}

// take notes what a reserved entry says, and returns what is wrong with it.
func (a *asked) take(e *policy.Entry) (why string) {
	if e.Value == "" {
		return e.Key + " is empty: give it a value, or leave it out"
	}
	switch e.Key {
	case reservedMeter:
		if a.class = classNamed(e.Value); a.class == classes {
			return fmt.Sprintf("%s %.100q is unknown: use requests, input_tokens, cache_read, cache_write, output_tokens or tokens", e.Key, e.Value)
		}
	case reservedPhase:
		if a.phase = phaseNamed(e.Value); a.phase == unknown {
			return fmt.Sprintf("%s %.100q is unknown: use admit, hold, record, done or failed", e.Key, e.Value)
		}
	case reservedLane: // see laneAsked
	case reservedRequest:
		a.request = e.Value
	case reservedModel:
		a.model = e.Value
	case reservedTier:
		a.tier = e.Value
	case KeyEntry:
		a.key = e.Value
	case reservedAPI:
		if a.api = apiNamed(e.Value); a.api == APINone {
			return fmt.Sprintf("%s %.100q is unknown: use anthropic or openai", e.Key, e.Value)
		}
	default:
		return fmt.Sprintf("%.100q is no reserved entry of this version: use %s, %s, %s, %s, %s, %s, %s, %s or %sHEADER", e.Key,
			reservedMeter, reservedPhase, reservedRequest, reservedModel, reservedTier, KeyEntry, reservedAPI, reservedLane, reservedProvider)
	}
	return ""
}

// lease returns the lease that the request opens or ends, nil for none. Its id is made of the
// domain, who asks, and the request's own id; so that another subject cannot touch it. Hits that are
// given back have no part in it.
func (s *scratch) lease(domain *policy.Domain, request *Request, total *demand) (*store.Lease, error) {
	id, ends, reports, fails := "", false, false, false
	for i := range s.asked {
		a := &s.asked[i]
		if a.giveBack {
			continue
		}
		reports = reports || a.phase == record // with or without the id: it is the same call's
		if a.request == "" {
			continue
		}
		if id != "" && id != a.request {
			return nil, &InvalidError{
				Field:  fmt.Sprintf("descriptors[%d].entries", i),
				Reason: "ration.request differs from that of another descriptor: a call is about one request",
			}
		}
		if id != "" && ends != (a.phase >= record) {
			return nil, &InvalidError{
				Field:  fmt.Sprintf("descriptors[%d].entries", i),
				Reason: "ration.phase: a request is either admitted (admit, hold) or ends (record, done, failed) in one call",
			}
		}
		id, ends = a.request, a.phase >= record
		fails = fails || a.phase == fail && domain.OnFailure() == policy.FailureNothing
	}
	if id == "" {
		return nil, nil
	}
	l := &s.leased
	*l = store.Lease{ID: s.leaseID(request.Domain, id), Request: s.fingerprint(request), Lasts: leaseLasts}
	switch {
	case ends && (reports || fails):
		l.Do = store.LeaseSettle
		s.actual = total.record.settled()
		if fails {
			s.nothingElse()
		}
		l.Actual = s.actual[:]
	case ends:
		l.Do = store.LeaseLapse
	}
	return l, nil
}

// nothingElse says of what nobody has told that none of it was used. The request was made all the same.
func (s *scratch) nothingElse() {
	for m, amount := range s.actual {
		if amount == store.Unknown && measure(m) != ofRequests && measure(m) != ofAsked {
			s.actual[m] = 0
		}
	}
}

// leaseID makes the id of a lease: whoever knows only some of what it is made of cannot guess it. Of
// several subjects it is the first in the order of their names that counts, in whichever order a call
// names them.
func (s *scratch) leaseID(domain, request string) (id store.LeaseID) {
	subject := []byte(nil)
	for i := range s.matches {
		m := &s.matches[i]
		if m.HasSubject && (subject == nil || bytes.Compare(m.Owner, subject) < 0) {
			subject = m.Owner // with its key: user=a is not org=a
		}
	}
	text := s.text[:0]
	text = binary.LittleEndian.AppendUint32(text, uint32(len(domain)))
	text = append(text, domain...)
	text = binary.LittleEndian.AppendUint32(text, uint32(len(subject)))
	text = append(text, subject...)
	text = append(text, request...)
	s.text = text
	sum := sha256.Sum256(text)
	copy(id[:], sum[:])
	return id
}

// fingerprint tells a repeat of request from another one, in whichever order they name what they ask
// for, however they are to be answered, and whatever they tell of the provider.
func (s *scratch) fingerprint(request *Request) (sum uint64) {
	for i := range request.Descriptors {
		d := &request.Descriptors[i]
		if d.GiveBack {
			continue
		}
		text := s.text[:0]
		add := func(part string) {
			text = binary.LittleEndian.AppendUint32(text, uint32(len(part)))
			text = append(text, part...)
		}
		text = binary.LittleEndian.AppendUint64(text, uint64(request.amount(d)))
		for j := range d.Entries {
			if key := d.Entries[j].Key; key == reservedAPI || strings.HasPrefix(key, reservedProvider) {
				continue
			}
			add(d.Entries[j].Key)
			add(d.Entries[j].Value)
		}
		s.text = text
		sum += xxhash.Sum64(text)
	}
	return sum
}
