package main

import (
	"net/http"
	"time"
)

// fault is an error on its way to the caller. Each API has its own words for it: what is empty here, it fills in by
// the status.
type fault struct {
	status  int
	message string
	// kind is the type of the error on the wire.
	kind string
	// code and param exist in OpenAI's errors only.
	code, param string
	// refusal is there where a rate limit refused.
	refusal *refusal
	// retryAfter is how long the caller is told to wait, 0 where nothing is told.
	retryAfter time.Duration
}

func invalid(param, message string) *fault {
	return &fault{status: http.StatusBadRequest, param: param, message: message}
}

// outcome is what the ledger says of the fault.
func (f *fault) outcome() outcome {
	switch f.status {
	case http.StatusTooManyRequests:
		return limited
	case http.StatusServiceUnavailable, statusOverloaded:
		return overloaded
	default:
		return failed
	}
}

// statusOverloaded is Anthropic's own, for a service that has too much to do.
const statusOverloaded = 529
