package client

import (
	"fmt"
	"net/http"
)

// Refusal says that a call may not be made, and what helps. It is an answer to the user, and no outage: repeating it at
// once is in vain.
type Refusal struct {
	Decision
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.Message == "" {
		return fmt.Sprintf("refused: %s", r.Verdict)
	}
	return r.Message
}

// WriteResponse answers the application's own caller: status, header fields and body as the server has made them.
func (r *Refusal) WriteResponse(w http.ResponseWriter) {
	for name, value := range r.HTTP.Headers {
		w.Header().Set(name, value)
	}
	status := r.HTTP.Status
	if status == 0 {
		status = http.StatusTooManyRequests
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(r.HTTP.Body)) // the caller may have left
}
