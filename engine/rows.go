package engine

import (
	"bytes"
	"math"
	"math/bits"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// What was used is added up in rows, in the same step as it is charged: by who pays, by the tier, the model and the
// policy's tags, for each hour and day. What a call holds is not in them; but what would stay charged if nobody settled
// it is there from the beginning, in the hour in which the call was admitted, and a settlement puts it right there.

// The columns of a row.
const (
	columnRequests uint8 = iota
	columnInput          // tokens, as the three that follow
	columnCacheRead
	columnCacheWrite
	columnOutput
	columnCost        // nano-dollars
	columnRateLimited // requests that were refused, by what was said to them
	columnQuotaExhausted
	columnTooLarge
	columnBlocked
	columnTokens   // of all classes, to rank by
	columnRefusals // of all kinds, to rank by

	columnLatency = 16 // the first of those of the histogram
)

// rankedColumns are those by which subjects are ranked.
const rankedColumns = 1<<columnRequests | 1<<columnTokens | 1<<columnCost | 1<<columnRefusals

// The histogram of how long calls take from their reservation to their settlement: column columnLatency + i counts those
// that took up to shortestLatency · 2^(3i/8), and the last one those that took longer, too.
const (
	latencyColumns  = store.MaxColumns - columnLatency
	shortestLatency = 16 * limit.Second / 1000
)

// latencyColumn returns the column that counts a call which took so long.
func latencyColumn(took limit.Micros) uint8 {
	if took <= shortestLatency {
		return columnLatency
	}
	octaves := math.Log2(float64(took) / float64(shortestLatency))
	return columnLatency + uint8(min(latencyColumns-1, int(math.Ceil(octaves*8/3))))
}

// latencyUpTo returns the longest that a call took which a column counts.
func latencyUpTo(column uint8) limit.Micros {
	return limit.Micros(float64(shortestLatency) * math.Exp2(float64(column-columnLatency)*3/8))
}

// addition is what a step adds to the columns of a row.
type addition [store.MaxColumns]int64

// added returns what so many requests add together.
func added(requestCount int64, of price.Usage, cost price.Nanos) (a addition) {
	a[columnRequests] = requestCount
	a[columnInput], a[columnOutput] = of.Input, of.Output
	a[columnCacheRead], a[columnCacheWrite] = of.CacheRead, of.CacheWrite
	a[columnTokens], a[columnCost] = tokensOf(of), int64(cost)
	return a
}

// tokensOf returns the tokens of all classes.
func tokensOf(u price.Usage) int64 {
	return limit.Add(limit.Add(u.Input, u.CacheRead), limit.Add(u.CacheWrite, u.Output))
}

// stays returns what of an estimate stays used if nobody settles it: the prompt.
func stays(estimate price.Usage) price.Usage {
	estimate.Output = 0
	return estimate
}

// readDimensions reads what appendDimensions writes; the tags are in the order of the policy's. ok is false where it was
// not that.
func readDimensions(b []byte) (tier, model string, tags []string, ok bool) {
	r := noteReader{rest: b}
	tier, model = r.text(), r.text()
	for len(r.rest) > 0 && !r.broken {
		tags = append(tags, r.text())
	}
	return tier, model, tags, !r.broken
}

// longestDimension bounds what a row takes of a name that a caller has given, in bytes.
const longestDimension = 128

// clipped returns as much of s as a row takes, in whole characters.
func clipped(s string) string {
	if len(s) <= longestDimension {
		return s
	}
	return strings.ToValidUTF8(s[:longestDimension], "")
}

// part is what rows are told apart by, beside whose they are.
type part struct {
	at    limit.Micros
	tier  string
	model string
}

// report adds to the step what is added to the rows of those who pay. All subjects of the request have rows; the domain
// counts those of the first.
func (s *scratch) report(domain *policy.Domain, of part, more *addition) {
	if row, kept := s.row(domain, of, more); kept && len(row.Add) > 0 {
		first := s.firstSubject(domain.SubjectKey())
		s.addRow(s.ownedBy(row, domain, first))
		s.reportOthers(row, first)
	}
}

// reportCall is report of a call that has a lease: inAll is what it has added in all, of which more is new. The lease
// keeps that for the first subject, so that the store knows what is new even if this process does not.
func (s *scratch) reportCall(domain *policy.Domain, of part, inAll, more *addition) {
	row, kept := s.row(domain, of, inAll)
	if !kept {
		return
	}
	first := s.firstSubject(domain.SubjectKey())
	owned := s.ownedBy(row, domain, first)
	owned.OfLease = true
	s.addRow(owned)
	if row, _ = s.row(domain, of, more); len(row.Add) > 0 {
		s.reportOthers(row, first)
	}
}

// addRow adds a row to the step, unless its name is longer than any may be.
func (s *scratch) addRow(row store.Row) {
	if isNameable(&row) {
		s.step.Rows = append(s.step.Rows, row)
	}
}

func isNameable(row *store.Row) bool {
	return len(row.Owner)+len(row.Group)+len(row.Dimensions) <= store.MaxRowName
}

// row returns what is added to a row, whosoever; kept is false where the domain keeps none.
func (s *scratch) row(domain *policy.Domain, of part, more *addition) (row store.Row, kept bool) {
	usage := domain.Usage()
	if usage.Off {
		return row, false
	}
	row = store.Row{At: of.at, Keep: store.Retain(usage.Keep)}
	from := len(s.rowBytes)
	s.rowBytes = append(s.rowBytes, domain.Name()...)
	row.Group, from = s.rowBytes[from:], len(s.rowBytes)
	s.rowBytes = s.appendDimensions(s.rowBytes, of, usage.Tags)
	row.Dimensions, from = s.rowBytes[from:], len(s.additions)
	for column, amount := range more {
		if amount != 0 {
			s.additions = append(s.additions, store.Addition{Column: uint8(column), Amount: amount})
		}
	}
	row.Add = s.additions[from:]
	return row, true
}

// ownedBy makes a row that of the subject at a match, or of the domain alone where that is −1, or has too long a name.
func (s *scratch) ownedBy(row store.Row, domain *policy.Domain, match int) store.Row {
	if match >= 0 {
		owned := row
		if owned.Rank, owned.Owner = rankedColumns, s.matches[match].Owner; isNameable(&owned) {
			return owned
		}
	}
	row.Owner = domain.Root().Owner
	return row
}

// reportOthers adds the row of each subject but the first.
func (s *scratch) reportOthers(row store.Row, first int) {
	if first < 0 {
		return
	}
	row.Rank, row.Keep.GroupHours, row.Keep.GroupDays = rankedColumns, 0, 0
	for i := range s.matches {
		if m := &s.matches[i]; m.HasSubject && !s.paidBefore(i, first) {
			row.Owner = m.Owner
			s.addRow(row)
		}
	}
}

// appendDimensions appends what tells the rows of a subject apart, each behind its length.
func (s *scratch) appendDimensions(b []byte, of part, tags []string) []byte {
	b = appendText(appendText(b, of.tier), clipped(of.model))
	for _, key := range tags {
		b = appendText(b, clipped(s.tag(key)))
	}
	return b
}

// firstSubject returns the match of the subject that the rows of the domain are of: one that is named by the policy's first
// such key, if there is one; -1 where nobody pays.
func (s *scratch) firstSubject(key string) int {
	first := -1
	for i := range s.matches {
		m := &s.matches[i]
		if !m.HasSubject {
			continue
		}
		if hasKey(m.Owner, key) {
			return i
		}
		if first < 0 {
			first = i
		}
	}
	return first
}

// paidBefore reports whether a match before i, or the first one, has the same owner.
func (s *scratch) paidBefore(i, first int) bool {
	owner := s.matches[i].Owner
	for j := range s.matches[:i] {
		if s.matches[j].HasSubject && bytes.Equal(s.matches[j].Owner, owner) {
			return true
		}
	}
	return bytes.Equal(s.matches[first].Owner, owner)
}

// hasKey reports whether the last entry in the name of an owner has that key.
func hasKey(owner []byte, key string) bool {
	last := owner[bytes.LastIndexByte(owner, '|')+1:]
	return string(last[:max(0, bytes.IndexByte(last, '='))]) == key
}

// tag returns the value of an attribute of the request; of descriptors the first that has it.
func (s *scratch) tag(key string) string {
	if s.wholeCall {
		return valueOf(s.entries, key)
	}
	for i := range s.asked {
		if v := valueOf(s.asked[i].entries, key); v != "" {
			return v
		}
	}
	return ""
}

func valueOf(entries []policy.Entry, key string) string {
	for i := range entries {
		if entries[i].Key == key {
			return entries[i].Value
		}
	}
	return ""
}

// model returns the first that a request over Envoy's protocol names.
func (s *scratch) model() string {
	for i := range s.asked {
		if s.asked[i].model != "" {
			return s.asked[i].model
		}
	}
	return ""
}

// perRequest returns a sum for each of so many requests, rounded to the nearest.
func perRequest(sum, requestCount int64) int64 {
	if requestCount <= 0 || sum <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(sum), 2)
	lo, carry := bits.Add64(lo, uint64(requestCount), 0)
	n, _ := bits.Div64(hi+carry, lo, 2*uint64(requestCount))
	return int64(n)
}
