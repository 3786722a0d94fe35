package contract

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A recorded answer cannot hold the seconds to the end of a window, so it says "rest of DAY" or "rest of 10 MINUTE".
var restOf = regexp.MustCompile(`^rest of (?:(\d+) )?([A-Z]+)$`)

// unitSeconds are the lengths of the windows; all are aligned to the Unix epoch, so weeks begin on a Thursday.
func unitSeconds(unit string) int64 {
	const day = 24 * 60 * 60
	switch unit {
	case "SECOND":
		return 1
	case "MINUTE":
		return 60
	case "HOUR":
		return 60 * 60
	case "DAY":
		return day
	case "WEEK":
		return 7 * day
	case "MONTH":
		return 30 * day
	case "YEAR":
		return 365 * day
	}
	return 0
}

// span is the time during which an answer was made.
type span struct{ from, to time.Time }

// tolerance is how far a server's clock, or its rounding, may be off.
const tolerance = 1

// isRest tells whether got seconds is what was left of a window during the span.
func (s *span) isRest(windowSeconds, got int64) bool {
	if got < 1 || got > windowSeconds {
		return false
	}
	for now := s.from.Unix() - tolerance; now <= s.to.Unix()+tolerance; now++ {
		if windowSeconds-now%windowSeconds == got {
			return true
		}
	}
	return false
}

// compare lists where got is not what was wanted, as "path: want x, got y". when is needed for answers that hold
// the rest of a window.
func compare(want, got any, when *span) []string {
	return compareAt("", want, got, when)
}

func compareAt(path string, want, got any, when *span) []string {
	here := func() []string {
		return []string{fmt.Sprintf("%s: want %s, got %s", strings.TrimPrefix(path, "."), brief(want), brief(got))}
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return here()
		}
		var diff []string
		keys := slices.Collect(maps.Keys(w))
		for k := range g {
			if _, wanted := w[k]; !wanted {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			wv, wanted := w[k]
			gv, present := g[k]
			at := path + "." + k
			switch {
			case !wanted && path == ".error" && k == "message":
				// An error written without a message stands for any message.
			case !wanted:
				diff = append(diff, fmt.Sprintf("%s: want nothing, got %s", strings.TrimPrefix(at, "."), brief(gv)))
			case !present:
				diff = append(diff, fmt.Sprintf("%s: want %s, got nothing", strings.TrimPrefix(at, "."), brief(wv)))
			default:
				diff = append(diff, compareAt(at, wv, gv, when)...)
			}
		}
		return diff
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return here()
		}
		var diff []string
		for i := range w {
			diff = append(diff, compareAt(fmt.Sprintf("%s[%d]", path, i), w[i], g[i], when)...)
		}
		return diff
	case string:
		g, ok := got.(string)
		if !ok {
			return here()
		}
		if m := restOf.FindStringSubmatch(w); m != nil && when != nil {
			if !isRestText(m, g, when) {
				return here()
			}
			return nil
		}
		if w != anyText && w != g {
			return here()
		}
		return nil
	default:
		if want != got {
			return here()
		}
		return nil
	}
}

func isRestText(m []string, got string, when *span) bool {
	window := unitSeconds(m[2])
	if m[1] != "" {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return false
		}
		window *= n
	}
	seconds, err := strconv.ParseInt(strings.TrimSuffix(got, "s"), 10, 64)
	return err == nil && window > 0 && when.isRest(window, seconds)
}

func brief(v any) string {
	text, err := flow(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return text
}

// tree turns a recorded answer into the form that compare takes.
func tree(n *yaml.Node) (any, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	return normalize(v), nil
}

func normalize(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = normalize(v[k])
		}
		return v
	case []any:
		for i := range v {
			v[i] = normalize(v[i])
		}
		return v
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	}
	return v
}
