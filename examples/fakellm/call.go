package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// call is a request that is being answered.
type call struct {
	*server
	dialect dialect
	w       http.ResponseWriter
	r       *http.Request
	account account
	entry   *entry
	// body is the request's, once it was read.
	body []byte
	x    exchange
}

func (s *server) newCall(w http.ResponseWriter, r *http.Request, d dialect) *call {
	c := &call{server: s, dialect: d, w: w, r: r}
	c.x.number, c.x.created = s.numbers.Add(1), s.now()
	return c
}

// answer handles the requests of an API that a model answers.
func (s *server) answer(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := s.newCall(w, r, d)
		f := c.receive()
		c.account = account{provider: d.provider(), key: d.key(r), model: c.x.model}
		c.entry = s.ledger.open(party{
			API: d.name(), Key: c.account.key, User: r.Header.Get(s.options.UserHeader), Model: c.x.model,
		})

		// A reset of the connection leaves by a panic, which the HTTP server knows how to take.
		how := broken
		defer func() { c.entry.close(how) }()
		if f != nil {
			how = c.refuse(f)
			return
		}
		how = c.run()
	}
}

// receive reads the request and plans its answer.
func (c *call) receive() *fault {
	if f := c.readBody(); f != nil {
		return f
	}
	a, f := c.dialect.read(c.r, c.body)
	// What could be read stands in the ledger, fault or not.
	c.x.ask = a
	if f != nil {
		return f
	}
	if f := c.unserved(a.model); f != nil {
		return f
	}
	said, err := c.scriptFor(a, c.r)
	if err != nil {
		return invalid("", err.Error())
	}
	c.x.script, c.x.plan = said, planFor(a, said)
	return nil
}

// readBody takes the request as it is, shows it at /fake/requests, and makes sure of the key.
func (c *call) readBody() *fault {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	c.arrivals.add(c.r, body)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return &fault{status: http.StatusRequestEntityTooLarge, message: "the request is larger than 32 MiB"}
	}
	if err != nil {
		return invalid("", "the request did not arrive: "+err.Error())
	}
	key := c.dialect.key(c.r)
	if key == "" || (c.options.Keys != nil && !slices.Contains(c.options.Keys, key)) {
		return &fault{status: http.StatusUnauthorized, code: "invalid_api_key", message: "the API key is missing or unknown"}
	}
	c.body = body
	return nil
}

// aside begins the answer to a request that no model is asked for, and that is neither limited nor in the ledger.
func (s *server) aside(w http.ResponseWriter, r *http.Request, d dialect) (*call, *fault) {
	c := s.newCall(w, r, d)
	return c, c.readBody()
}

func (c *call) answerAside(document any) {
	c.dialect.head(c.w.Header(), &c.x, standings{at: c.now()}, nil)
	writeJSON(c.w, http.StatusOK, document)
}

func (c *call) answerFault(f *fault) {
	c.dialect.head(c.w.Header(), &c.x, standings{at: c.now()}, f)
	writeJSON(c.w, f.status, c.dialect.errorBody(&c.x, f))
}

// run decides whether the request is answered, and does so.
func (c *call) run() outcome {
	if c.places != nil {
		select {
		case c.places <- struct{}{}:
			defer func() { <-c.places }()
		default:
			return c.refuse(&fault{status: c.dialect.overloaded(), message: "Overloaded"})
		}
	}
	if c.x.status != 0 {
		if !sleep(c.r.Context(), c.x.firstByte) {
			return aborted
		}
		return c.refuse(c.scriptedFault(c.x.status))
	}
	stands, refused := c.limits.admit(c.account, c.dialect.demand(c.x.ask, c.x.plan), c.now())
	if refused != nil {
		return c.refuse(&fault{status: http.StatusTooManyRequests, refusal: refused, retryAfter: refused.retryAfter})
	}
	if !sleep(c.r.Context(), c.x.firstByte) {
		return aborted
	}
	// The model has read the prompt, whatever becomes of its answer.
	c.entry.serve(c.x.tokens.prompt())
	if c.x.stream {
		c.dialect.head(c.w.Header(), &c.x, stands, nil)
		return c.stream()
	}
	return c.whole()
}

// scriptedFault is the error that a script asks for.
func (c *call) scriptedFault(status int) *fault {
	return &fault{
		status: status, kind: c.x.errorType, code: c.x.errorType, retryAfter: c.x.retryAfter, message: "as the script says",
	}
}

// refuse answers with an error.
func (c *call) refuse(f *fault) outcome {
	c.dialect.head(c.w.Header(), &c.x, c.limits.look(c.account, c.now()), f)
	writeJSON(c.w, f.status, c.dialect.errorBody(&c.x, f))
	return f.outcome()
}

// produce accounts for output that has left.
func (c *call) produce(output, reasoning int64) {
	c.entry.serve(tokens{Output: output, Reasoning: reasoning})
	c.limits.produce(c.account, output, c.now())
}

// stream answers in events.
func (c *call) stream() outcome {
	ctx := c.r.Context()
	out := openWire(c.w, c.r, c.x.script, "text/event-stream; charset=utf-8")
	produced, sent := int64(0), 0
	for e := range c.dialect.events(&c.x) {
		if c.x.abortAfter != nil && produced >= *c.x.abortAfter {
			out.abort()
		}
		if c.x.errorAfter != nil && produced >= *c.x.errorAfter {
			return c.breakOff(ctx, out, sent)
		}
		if !out.pace.produce(ctx, e.output) {
			return aborted
		}
		if e.data != nil {
			if err := sendEvent(out, e); err != nil {
				return aborted
			}
			sent++
		}
		produced += e.output
		if e.output > 0 {
			c.produce(e.output, e.reasoning)
		}
	}
	if err := out.finish(ctx, c.x.slowClose); err != nil {
		return aborted
	}
	return completed
}

// breakOff ends a stream with an error in it.
func (c *call) breakOff(ctx context.Context, out *wire, sent int) outcome {
	for _, e := range c.dialect.errorEvents(&c.x, c.scriptedFault(c.dialect.overloaded()), sent) {
		if err := sendEvent(out, e); err != nil {
			return aborted
		}
	}
	if err := out.finish(ctx, c.x.slowClose); err != nil {
		return aborted
	}
	return broken
}

func sendEvent(out *wire, e event) error {
	lines, err := e.encode()
	if err != nil {
		return err
	}
	return out.send(lines)
}

// whole answers in one document, once all of it is there.
func (c *call) whole() outcome {
	ctx := c.r.Context()
	t := c.x.tokens
	if n := firstOf(c.x.errorAfter, c.x.abortAfter); n != nil && *n < t.Output {
		return c.wholeUntil(ctx, *n)
	}
	body, err := marshal(c.dialect.whole(&c.x))
	if err != nil {
		return c.refuse(&fault{status: http.StatusInternalServerError, message: err.Error()})
	}
	thinking := pace{perSecond: c.x.tokensPerSecond, start: time.Now()}
	if !thinking.produce(ctx, t.Output) {
		return aborted
	}
	// The headers tell of the limits as the answer leaves them.
	c.produce(t.Output, t.Reasoning)
	c.dialect.head(c.w.Header(), &c.x, c.limits.look(c.account, c.now()), nil)
	out := openWire(c.w, c.r, c.x.script, "application/json")
	if err := out.send(body); err != nil {
		return aborted
	}
	if err := out.finish(ctx, c.x.slowClose); err != nil {
		return aborted
	}
	return completed
}

// wholeUntil is an answer in one document that never is, since its script ends it after n tokens of output. Nobody
// sees them.
func (c *call) wholeUntil(ctx context.Context, n int64) outcome {
	thinking := pace{perSecond: c.x.tokensPerSecond, start: time.Now()}
	if !thinking.produce(ctx, n) {
		return aborted
	}
	if c.x.abortAfter != nil {
		c.dialect.head(c.w.Header(), &c.x, c.limits.look(c.account, c.now()), nil)
		out := openWire(c.w, c.r, c.x.script, "application/json")
		// What comes of the half document matters as little as the document.
		_ = out.send([]byte(`{"id":`))
		out.abort()
	}
	return c.refuse(c.scriptedFault(c.dialect.overloaded()))
}

func firstOf(a, b *int64) *int64 {
	if a != nil {
		return a
	}
	return b
}
