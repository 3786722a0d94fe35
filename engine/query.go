package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// UsageQuery asks what was used.
type UsageQuery struct {
	Domain string
	// Subject is whose usage is asked for, as its descriptor has it, KEY=VALUE; empty: that of the whole domain.
	Subject policy.Entry
	// From and To bound the hours, or days, of which any part lies in From ≤ t < To.
	From, To   limit.Micros
	Resolution Resolution
	// By are the names by which rows are told apart: subject, tier, model, and the policy's tags. By subject there are those
	// who are among the thousand that have used most in a month, in any way that subjects are ranked by; the total is of all.
	By []string
}

// Resolution is how finely usage is reported.
type Resolution uint8

// The resolutions. Totals are of days.
const (
	ByDays Resolution = iota
	ByHours
	Totals
)

// UsageRow is what was used in a time by a group.
type UsageRow struct {
	Start    limit.Micros // of the hour or the day; 0 of a total
	Group    []string     // the values of UsageQuery.By
	Requests int64
	// Refusals are requests that were refused, by their verdict: Throttled to Blocked.
	Refusals [Blocked + 1]int64
	// Tokens are those of all classes, and Usage which. Of a call that has told what it has used, and was never settled,
	// Usage has the most of each class that was estimated of the prompt or told of, which may be more than Tokens.
	Tokens int64
	Usage  price.Usage
	Cost   price.Nanos
	// TokensPerRequest is rounded; 0 without requests.
	TokensPerRequest int64
	Latency          Latency
}

// Latency is how long calls have taken from their reservation to their settlement. The times are at most 30 % too long.
type Latency struct {
	Count         int64
	P50, P95, P99 limit.Micros
}

// ErrNoUsage says that the store keeps no rows of usage.
var ErrNoUsage = fmt.Errorf("%w: it keeps no rows of usage", store.ErrUnsupported)

// Usage returns what was used, in the order of time and then of groups, and the sum of it all.
//
// Errors: an *InvalidError; ErrNoPolicy, ErrUnknownDomain; those of the store.
func (e *Engine) Usage(ctx context.Context, q *UsageQuery) (rows []UsageRow, total UsageRow, err error) {
	_, domain, err := e.domainOf(ctx, &Caller{Domain: q.Domain})
	if err != nil {
		return nil, total, err
	}
	if err := scopeOf(ctx).takesSubjects(domain, []policy.Entry{q.Subject}); err != nil {
		return nil, total, err
	}
	places, err := q.places(domain)
	if err != nil {
		return nil, total, err
	}
	reader, ok := e.store.(store.Usage)
	if !ok {
		return nil, total, ErrNoUsage
	}
	ask := store.RowsQuery{Group: []byte(domain.Name()), From: q.From, To: q.To, Daily: q.Resolution != ByHours}
	if q.Subject.Key != "" {
		ask.Owner = domain.OwnerOf(q.Subject)
	}
	if q.To <= q.From {
		return nil, total, &InvalidError{Field: "to", Reason: "it is not after from"}
	}
	all := new(addition)
	found, err := readRows(ctx, reader, ask, subjectWords(q.Subject))
	if err != nil {
		return nil, total, err
	}
	if len(found) == 0 {
		if err := keeps(domain, q.Subject.Key != "", !ask.Daily); err != nil {
			return nil, total, err
		}
	}
	for i := range found {
		all.addAll(found[i].Columns)
	}
	if q.Subject.Key == "" && slices.Contains(q.By, bySubject) {
		if found, err = q.readSubjects(ctx, reader, ask); err != nil {
			return nil, total, err
		}
	}
	for _, sum := range q.sums(found, places) {
		row := sum.row()
		row.Start, row.Group = sum.start, sum.group
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b UsageRow) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), slices.Compare(a.Group, b.Group))
	})
	return rows, all.row(), nil
}

// sumsOf are the sums of a subject, or of all.
type sumsOf struct {
	store.Sums
	subject string
}

func readRows(ctx context.Context, reader store.Usage, ask store.RowsQuery, subject string) (found []sumsOf, err error) {
	sums, err := reader.Rows(ctx, ask)
	if errors.Is(err, store.ErrInvalid) {
		return nil, &InvalidError{Field: "from", Reason: strings.TrimPrefix(err.Error(), store.ErrInvalid.Error()+": ")}
	}
	for i := range sums {
		found = append(found, sumsOf{sums[i], subject})
	}
	return found, err
}

// bySubject is the name by which the rows of all are told apart by whose they are.
const bySubject = "subject"

// mostMonths is how many months a query spans at most that asks for subjects.
const mostMonths = 12

// subjectReads is how many subjects are read at once: each is a round trip, and there may be thousands of them.
const subjectReads = 16

// readSubjects reads the rows of each subject that is among those who have used most in a month of the query: there may
// be any number of others, and nobody looks through them all.
func (q *UsageQuery) readSubjects(ctx context.Context, reader store.Usage, ask store.RowsQuery) (found []sumsOf, err error) {
	owners, err := q.leaders(ctx, reader, ask.Group)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	reads, ctx := errgroup.WithContext(ctx)
	reads.SetLimit(subjectReads)
	for _, owner := range owners {
		of := ask
		of.Owner = owner
		reads.Go(func() error {
			rows, err := readRows(ctx, reader, of, ownerWords(owner))
			mu.Lock()
			defer mu.Unlock()
			if found = append(found, rows...); err == nil && len(found) > store.MaxSums {
				err = &InvalidError{Field: "from", Reason: "there is too much to tell: ask for a shorter time, or for totals"}
			}
			return err
		})
	}
	err = reads.Wait()
	return found, err
}

// leaders returns who is among those who have used most in a month of the query, by any measure.
func (q *UsageQuery) leaders(ctx context.Context, reader store.Usage, group []byte) (owners [][]byte, err error) {
	known := map[string]bool{}
	months := 0
	for month := store.Month.Start(q.From); month < q.To; month = store.Month.End(month) {
		if months++; months > mostMonths {
			return nil, &InvalidError{Field: "from", Reason: fmt.Sprintf("by subject, ask for %d months at most", mostMonths)}
		}
		for _, column := range [...]uint8{columnCost, columnTokens, columnRequests, columnRefusals} {
			top, err := reader.Top(ctx, store.TopQuery{Group: group, Column: column, In: month, Monthly: true, Most: store.MaxTop})
			if err != nil {
				return nil, err
			}
			for i := range top {
				if owner := top[i].Owner; !known[string(owner)] {
					known[string(owner)] = true
					owners = append(owners, owner)
				}
			}
		}
	}
	return owners, nil
}

// ownerWords says a subject as people do: KEY=VALUE.
func ownerWords(owner []byte) string {
	m := policy.Match{Owner: owner}
	return strings.Join(m.Path(), " ")
}

func subjectWords(e policy.Entry) string {
	if e.Key == "" {
		return ""
	}
	return e.Key + "=" + e.Value
}

// sum is what is reported of a group in a time.
type sum struct {
	addition
	start limit.Micros
	group []string
}

// sums adds up what is of the same group and time. Rows of another version are passed over.
func (q *UsageQuery) sums(found []sumsOf, places []int) map[string]*sum {
	all := map[string]*sum{}
	for i := range found {
		start := found[i].Start
		if q.Resolution == Totals {
			start = 0
		}
		group, ok := grouped(found[i].subject, found[i].Dimensions, places)
		if !ok {
			continue
		}
		name := binary.AppendVarint(nil, int64(start))
		for _, value := range group {
			name = appendText(name, value)
		}
		if all[string(name)] == nil {
			all[string(name)] = &sum{start: start, group: group}
		}
		all[string(name)].addAll(found[i].Columns)
	}
	return all
}

func (a *addition) addAll(more []store.Addition) {
	for _, m := range more {
		a[m.Column] = store.AddSigned(a[m.Column], m.Amount)
	}
}

// places returns where the values of By stand in the dimensions.
func (q *UsageQuery) places(domain *policy.Domain) (places []int, err error) {
	names := append([]string{bySubject, "tier", "model"}, domain.Usage().Tags...)
	for i, name := range q.By {
		place := slices.Index(names, name)
		if place < 0 {
			return nil, &InvalidError{
				Field:  fmt.Sprintf("group_by[%d]", i),
				Reason: fmt.Sprintf("rows are not told apart by %.100q: use %s", name, strings.Join(names, ", ")),
			}
		}
		places = append(places, place)
	}
	return places, nil
}

// grouped returns some of what tells a row from others. A tag that the row does not have is empty.
func grouped(subject string, dimensions []byte, places []int) (values []string, ok bool) {
	tier, model, tags, ok := readDimensions(dimensions)
	all := append([]string{subject, tier, model}, tags...)
	for _, place := range places {
		value := ""
		if place < len(all) {
			value = all[place]
		}
		values = append(values, value)
	}
	return values, ok
}

// row says the columns as people do.
func (a *addition) row() UsageRow {
	r := UsageRow{
		Requests: a[columnRequests], Tokens: a[columnTokens], Cost: price.Nanos(a[columnCost]),
		Usage: price.Usage{
			Input: a[columnInput], CacheRead: a[columnCacheRead], CacheWrite: a[columnCacheWrite], Output: a[columnOutput],
		},
		TokensPerRequest: perRequest(a[columnTokens], a[columnRequests]),
	}
	for verdict := Throttled; verdict <= Blocked; verdict++ {
		r.Refusals[verdict] = a[columnRateLimited+uint8(verdict-Throttled)]
	}
	for _, n := range a[columnLatency:] {
		r.Latency.Count += max(0, n)
	}
	r.Latency.P50, r.Latency.P95, r.Latency.P99 = a.quantile(50), a.quantile(95), a.quantile(99)
	return r
}

// quantile returns the time that so many of a hundred calls took at most.
func (a *addition) quantile(percent int64) limit.Micros {
	count := int64(0)
	for _, n := range a[columnLatency:] {
		count += max(0, n)
	}
	left := (count*percent + 99) / 100
	for column := uint8(columnLatency); column < store.MaxColumns && left > 0; column++ {
		if left -= max(0, a[column]); left <= 0 {
			return latencyUpTo(column)
		}
	}
	return 0
}

// Ranking is by what subjects are ranked.
type Ranking uint8

// The rankings.
const (
	ByCost Ranking = iota
	ByRequests
	ByTokens
	ByRefusals
)

// Ranked is one of those who have used most.
type Ranked struct {
	Subject string // KEY=VALUE
	Total   int64
}

// keeps says which rows the policy does not keep: nothing found would look like nothing used.
func keeps(domain *policy.Domain, ofSubject, hours bool) error {
	u := domain.Usage()
	kept, name := u.Keep.GroupDays, "domain_daily"
	switch {
	case ofSubject && hours:
		kept, name = u.Keep.OwnerHours, "hourly"
	case ofSubject:
		kept, name = u.Keep.OwnerDays, "daily"
	case hours:
		kept, name = u.Keep.GroupHours, "domain_hourly"
	}
	switch {
	case u.Off:
		return &InvalidError{Field: "domain", Reason: "its policy keeps no usage: it says `usage: off`"}
	case kept == 0:
		return &InvalidError{Field: "domain", Reason: fmt.Sprintf("its policy keeps no such usage: it says `usage: { keep: { %s: off } }`", name)}
	}
	return nil
}

// Top returns who has used most on the day, or in the month, that an instant lies in, of UTC; and when that began. Its
// errors are those of Usage.
func (e *Engine) Top(
	ctx context.Context, domainName string, by Ranking, at limit.Micros, monthly bool, most int,
) (top []Ranked, start limit.Micros, err error) {
	_, domain, err := e.domainOf(ctx, &Caller{Domain: domainName})
	if err != nil {
		return nil, 0, err
	}
	if err := scopeOf(ctx).takesEverybody(); err != nil {
		return nil, 0, err
	}
	reader, ok := e.store.(store.Usage)
	if !ok {
		return nil, 0, ErrNoUsage
	}
	if most < 1 || most > store.MaxTop {
		return nil, 0, &InvalidError{Field: "limit", Reason: fmt.Sprintf("ask for 1 to %d subjects", store.MaxTop)}
	}
	column := [...]uint8{ByCost: columnCost, ByRequests: columnRequests, ByTokens: columnTokens, ByRefusals: columnRefusals}[by]
	found, err := reader.Top(ctx, store.TopQuery{
		Group: []byte(domain.Name()), Column: column, In: at, Monthly: monthly, Most: most,
	})
	if err != nil {
		return nil, 0, err
	}
	if len(found) == 0 {
		if err := keeps(domain, true, false); err != nil {
			return nil, 0, err
		}
	}
	for i := range found {
		top = append(top, Ranked{Subject: ownerWords(found[i].Owner), Total: found[i].Total})
	}
	span := store.Day
	if monthly {
		span = store.Month
	}
	return top, span.Start(at), nil
}
