package rls

import (
	"strconv"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/headers"
)

// appendLimitHeaders adds the three headers of the established contract, where a limit applied.
func appendLimitHeaders(into []headers.Field, names Headers, d *engine.Decision) []headers.Field {
	quoted := d.Quoted()
	if quoted < 0 {
		return into
	}
	s := &d.Statuses[quoted]
	return append(into,
		headers.Field{Name: names.Limit, Value: strconv.FormatInt(s.Limit.RequestsPerUnit, 10)},
		headers.Field{Name: names.Remaining, Value: strconv.FormatInt(s.Remaining, 10)},
		headers.Field{Name: names.Reset, Value: strconv.FormatInt(s.ResetAfter.Seconds(), 10)},
	)
}
