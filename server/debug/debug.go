// Package debug serves what only an operator should see: the rules as they were loaded, and Go's
// profiles. It listens on the loopback interface unless told otherwise.
package debug

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
)

// New returns the handler of the debug address.
func New(e *engine.Engine) http.Handler {
	mux := http.NewServeMux()
	pages := []struct {
		path, help string
		handler    http.HandlerFunc
	}{
		{"/debug/pprof/", "root of various pprof endpoints. hit for help.", pprof.Index},
		{"/debug/pprof/cmdline", "command line of this process", pprof.Cmdline},
		{"/debug/pprof/profile", "CPU profiling endpoint", pprof.Profile},
		{"/debug/pprof/symbol", "names of the functions at given addresses", pprof.Symbol},
		{"/debug/pprof/trace", "trace endpoint", pprof.Trace},
		{"/rlconfig", "print out the currently loaded configuration for debugging", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if p, _ := e.Policy(); p != nil {
				fmt.Fprint(w, list(p))
			}
		}},
	}
	var index strings.Builder
	for _, page := range pages {
		mux.HandleFunc(page.path, page.handler)
		fmt.Fprintf(&index, "%s: %s\n", page.path, page.help)
	}
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, index.String()) })
	return mux
}

// list prints the rules as the established contract's /rlconfig does, a line each, and then the
// limits in words.
func list(p *policy.Policy) string {
	var b strings.Builder
	for _, r := range p.Rules() {
		unit := "UNKNOWN"
		if !r.Unlimited {
			unit = strings.ToUpper(r.Unit.String())
		}
		fmt.Fprintf(&b, "%s: unit=%s requests_per_unit=%d, shadow_mode: %t, quota_mode: %t\n",
			r.Path, unit, r.RequestsPerUnit, r.Shadow, r.Quota)
	}
	for _, l := range p.Limits() {
		b.WriteString(strings.Join(l.Explain(), "\n"))
		b.WriteByte('\n')
	}
	return b.String()
}
