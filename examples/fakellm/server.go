package main

import (
	"fmt"
	"iter"
	"net/http"
	"sync/atomic"
	"time"
)

// options say what the server is like, for all requests.
type options struct {
	limitOptions `group:"Limits"`

	Script     string   `help:"How requests are answered that do not say so, in the words of the README: 'output-tokens=200 tokens-per-second=50'." placeholder:"WORDS"`
	Keys       []string `name:"key" sep:"none" help:"An API key that is accepted; repeat for more. Default: any." placeholder:"KEY"`
	Models     []string `name:"model" sep:"none" help:"A model that is served; repeat for more. Default: any." placeholder:"MODEL"`
	UserHeader string   `default:"x-fake-user" help:"Header that names the user in the ledger." placeholder:"NAME"`
	Keep       int      `default:"100" help:"How many requests /fake/requests shows. Default: 100." placeholder:"N"`
}

// validate refuses options that nothing can be made of.
func (o options) validate() error {
	for _, perMinute := range []int64{o.RPM, o.InputTPM, o.OutputTPM, o.TPM} {
		if perMinute < 0 || perMinute > maxPerMinute {
			return fmt.Errorf("a limit of %d per minute: want 0 to %d", perMinute, maxPerMinute)
		}
	}
	switch {
	case o.Burst <= 0 || o.Burst > time.Minute:
		return fmt.Errorf("a burst of %v: want more than nothing, and 1m at most", o.Burst)
	case o.Concurrency < 0:
		return fmt.Errorf("a concurrency of %d: want 0 or more", o.Concurrency)
	case o.Keep < 0:
		return fmt.Errorf("%d requests to keep: want 0 or more", o.Keep)
	}
	return nil
}

// dialect is how an API speaks: the only thing in which the three differ.
type dialect interface {
	// name of the API in the ledger, and provider whose limits hold.
	name() string
	provider() string
	// key is what the request presents, "" for nothing.
	key(r *http.Request) string
	// read understands a request.
	read(r *http.Request, body []byte) (ask, *fault)
	// demand is what an answer takes of the limits.
	demand(a ask, p plan) demand
	// head puts what an answer says beside its body into the headers, whether it is an error or not.
	head(h http.Header, x *exchange, s standings, f *fault)
	// overloaded is the status of a service that has too much to do.
	overloaded() int
	// whole is an answer in one piece; events are one in a stream.
	whole(x *exchange) any
	events(x *exchange) iter.Seq[event]
	// errorBody is a fault instead of an answer; errorEvents are one in the middle of a stream.
	errorBody(x *exchange, f *fault) any
	// Before them sent events have left.
	errorEvents(x *exchange, f *fault, sent int) []event
}

// maxBody is the largest request, as at Anthropic.
const maxBody = 32 << 20

// server answers requests of all APIs.
type server struct {
	options  options
	defaults script
	limits   *limiter
	ledger   *ledger
	arrivals *arrivals
	now      func() time.Time

	// numbers counts requests.
	numbers atomic.Uint64
	// places has room for as many requests as may be open at once; nil for any number.
	places chan struct{}
}

// newServer returns the service as a handler.
func newServer(o options) (http.Handler, error) {
	s, err := newServerAt(o, time.Now)
	if err != nil {
		return nil, err
	}
	return s.routes(), nil
}

// newServerAt is a server by the given clock. Delays pass in real time whatever it says.
func newServerAt(o options, now func() time.Time) (*server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	defaults := script{chunk: 4}
	if err := defaults.parse(o.Script); err != nil {
		return nil, fmt.Errorf("--script: %w", err)
	}
	s := &server{
		options: o, defaults: defaults, limits: newLimiter(o.limitOptions), ledger: newLedger(),
		arrivals: &arrivals{keep: o.Keep}, now: now,
	}
	if o.Concurrency > 0 {
		s.places = make(chan struct{}, o.Concurrency)
	}
	return s, nil
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", s.answer(anthropic{}))
	mux.HandleFunc("POST /v1/messages/count_tokens", s.countTokens)
	mux.HandleFunc("POST /v1/chat/completions", s.answer(chat{}))
	mux.HandleFunc("POST /v1/responses", s.answer(responses{}))
	mux.HandleFunc("GET /v1/models", s.listModels)
	mux.HandleFunc("GET /v1/models/{model}", s.showModel)
	mux.Handle("GET /fake/ledger", s.ledger)
	mux.HandleFunc("GET /fake/requests", s.arrivals.showAll)
	mux.HandleFunc("GET /fake/last", s.arrivals.showLast)
	mux.HandleFunc("POST /fake/reset", s.reset)
	return mux
}

// reset makes the server as it was at its start, but for the requests that are being answered.
func (s *server) reset(w http.ResponseWriter, _ *http.Request) {
	s.ledger.reset()
	s.arrivals.reset()
	s.limits.reset()
	w.WriteHeader(http.StatusNoContent)
}

// scriptFor is what the server, the prompt and the headers say together.
func (s *server) scriptFor(a ask, r *http.Request) (script, error) {
	headers := r.Header.Clone()
	headers.Del(s.options.UserHeader)
	return s.defaults.forRequest(a.prompt, headers)
}
