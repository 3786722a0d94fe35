package e2e

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The tests write a call to the rate limit service, and its answer, in one line each.
//
// A call is `domain: key=value, key=value; key=value hits 3`: descriptors are separated by semicolons and followed by
// what they carry: `hits 3`, `hits 3 negative`, `limit 10/MINUTE`, `limit 10/MINUTEx5` (an override for five minutes).
// `(hits 3)` at the end is for all of them.
//
// An answer is `pass:` or `refuse:` (the overall code), and then one status for each descriptor: `4 of 5/DAY` is OK
// with 4 left, `over 5/DAY` is OVER_LIMIT, `4 of 5/DAY (name)` has a named limit, `-` is OK with no limit, `unlimited`
// what it says.

const over, ok = rls.RateLimitResponse_OVER_LIMIT, rls.RateLimitResponse_OK

var (
	modifier  = regexp.MustCompile(` (hits (\d+)( negative)?|limit (\d+)/([A-Z]+)(x(\d+))?)$`)
	forAll    = regexp.MustCompile(` \(hits (\d+)\)$`)
	statusFmt = regexp.MustCompile(`^(over|(\d+) of) (\d+)/([A-Zx\d]+)( \((.*)\))?$`)
)

// parseCall reads a call. One that names no domain is for the given one.
func parseCall(text, domain string) *rls.RateLimitRequest {
	r := &rls.RateLimitRequest{Domain: domain}
	if m := forAll.FindStringSubmatch(text); m != nil {
		r.HitsAddend = uint32(number(m[1]))
		text = strings.TrimSuffix(text, m[0])
	}
	if named, rest, ok := strings.Cut(text, ": "); ok {
		r.Domain, text = named, rest
	}
	for descriptor := range strings.SplitSeq(text, "; ") {
		d := &ratelimit.RateLimitDescriptor{}
		for m := modifier.FindStringSubmatch(descriptor); m != nil; m = modifier.FindStringSubmatch(descriptor) {
			descriptor = strings.TrimSuffix(descriptor, m[0])
			if m[2] != "" {
				d.HitsAddend, d.IsNegativeHits = wrapperspb.UInt64(number(m[2])), m[3] != ""
				continue
			}
			d.Limit = &ratelimit.RateLimitDescriptor_RateLimitOverride{
				RequestsPerUnit: uint32(number(m[4])), Unit: types.RateLimitUnit(types.RateLimitUnit_value[m[5]])}
			if m[7] != "" {
				d.Limit.UnitMultiplier = wrapperspb.UInt32(uint32(number(m[7])))
			}
		}
		for entry := range strings.SplitSeq(descriptor, ", ") {
			key, value, _ := strings.Cut(entry, "=")
			d.Entries = append(d.Entries, &ratelimit.RateLimitDescriptor_Entry{Key: key, Value: value})
		}
		r.Descriptors = append(r.Descriptors, d)
	}
	return r
}

// call writes a call.
func call(r *rls.RateLimitRequest) string {
	var descriptors []string
	for _, d := range r.Descriptors {
		var entries []string
		for _, e := range d.Entries {
			entries = append(entries, e.Key+"="+e.Value)
		}
		text := strings.Join(entries, ", ")
		if d.HitsAddend != nil {
			text += fmt.Sprintf(" hits %d", d.HitsAddend.Value)
		}
		if d.IsNegativeHits {
			text += " negative"
		}
		if d.Limit != nil {
			text += fmt.Sprintf(" limit %d/%s", d.Limit.RequestsPerUnit, d.Limit.Unit)
			if d.Limit.UnitMultiplier != nil {
				text += fmt.Sprintf("x%d", d.Limit.UnitMultiplier.Value)
			}
		}
		descriptors = append(descriptors, text)
	}
	text := r.Domain + ": " + strings.Join(descriptors, "; ")
	if r.HitsAddend != 0 {
		text += fmt.Sprintf(" (hits %d)", r.HitsAddend)
	}
	return text
}

// verdict writes an answer.
func verdict(r *rls.RateLimitResponse) string {
	statuses := make([]string, len(r.Statuses))
	for i, s := range r.Statuses {
		limit := s.GetCurrentLimit()
		per := fmt.Sprintf("%d/%s", limit.GetRequestsPerUnit(), unit(limit))
		switch {
		case limit == nil && s.LimitRemaining == math.MaxUint32:
			statuses[i] = "unlimited"
		case limit == nil:
			statuses[i] = "-"
		case s.Code == over:
			statuses[i] = "over " + per
		default:
			statuses[i] = fmt.Sprintf("%d of %s", s.LimitRemaining, per)
		}
		if name := limit.GetName(); name != "" {
			statuses[i] += " (" + name + ")"
		}
		// What the notation has no words for stands out, so that no test expects it.
		if limit == nil && s.Code != ok || s.Code == over && s.LimitRemaining != 0 {
			statuses[i] += fmt.Sprintf("[%s, %d remaining]", s.Code, s.LimitRemaining)
		}
	}
	overall := "pass: "
	if r.OverallCode == over {
		overall = "refuse: "
	}
	return overall + strings.Join(statuses, "; ")
}

// parseStatus reads one status that has a limit, or returns nil.
func parseStatus(text string) *rls.RateLimitResponse_DescriptorStatus {
	m := statusFmt.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	s := &rls.RateLimitResponse_DescriptorStatus{Code: ok, LimitRemaining: uint32(number(m[2]))}
	if m[1] == "over" {
		s.Code = over
	}
	unit, times, multiplied := strings.Cut(m[4], "x")
	s.CurrentLimit = &rls.RateLimitResponse_RateLimit{Name: m[6], RequestsPerUnit: uint32(number(m[3])),
		Unit: rls.RateLimitResponse_RateLimit_Unit(rls.RateLimitResponse_RateLimit_Unit_value[unit])}
	if multiplied {
		s.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(uint32(number(times)))
	}
	return s
}

// parseVerdict reads an answer: whether it refuses, and the statuses that have a limit.
func parseVerdict(text string) (refused bool, limits []*rls.RateLimitResponse_DescriptorStatus) {
	overall, rest, _ := strings.Cut(text, ": ")
	for status := range strings.SplitSeq(rest, "; ") {
		if s := parseStatus(status); s != nil {
			limits = append(limits, s)
		}
	}
	return overall == "refuse", limits
}

// unit writes the unit of a limit: DAY, or MINUTEx5.
func unit(limit *rls.RateLimitResponse_RateLimit) string {
	if m := limit.GetUnitMultiplier(); m != nil {
		return fmt.Sprintf("%sx%d", limit.GetUnit(), m.Value)
	}
	return limit.GetUnit().String()
}

// window returns the length of the windows of a unit, DAY or MINUTEx5. They start at the Unix epoch and follow each
// other without a gap.
func window(unit string) time.Duration {
	unit, times, _ := strings.Cut(unit, "x")
	one := map[string]time.Duration{
		"SECOND": time.Second,
		"MINUTE": time.Minute,
		"HOUR":   time.Hour,
		"DAY":    24 * time.Hour,
		"WEEK":   7 * 24 * time.Hour,
		"MONTH":  30 * 24 * time.Hour,
		"YEAR":   365 * 24 * time.Hour,
	}[unit]
	return one * time.Duration(max(1, number(times)))
}

// secondsLeft returns how long the current window of a length still lasts: at least 1, since a window ends when the
// next one begins.
func secondsLeft(now time.Time, window time.Duration) int64 {
	length := int64(window / time.Second)
	return length - now.Unix()%length
}

// number reads what a regular expression has found to be digits, or nothing.
func number(digits string) uint64 {
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
