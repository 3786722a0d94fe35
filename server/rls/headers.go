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
	ceiling, remaining := s.Counts()
	return append(into,
		headers.Field{Name: names.Limit, Value: strconv.FormatInt(ceiling, 10)},
		headers.Field{Name: names.Remaining, Value: strconv.FormatInt(remaining, 10)},
		headers.Field{Name: names.Reset, Value: strconv.FormatInt(s.ResetAfter.Seconds(), 10)},
	)
}
