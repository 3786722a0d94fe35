package main

import (
	"net/http"
	"slices"
	"sync"
)

// arrival is a request as it came in, so that a test sees what was made of it on the way.
type arrival struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Host    string      `json:"host"`
	Proto   string      `json:"proto"`
	Headers http.Header `json:"headers"`
	Body    string      `json:"body"`
}

// arrivals keeps the last requests. Safe for concurrent use.
type arrivals struct {
	keep int

	mu   sync.Mutex
	last []arrival
}

func (a *arrivals) add(r *http.Request, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = append(a.last, arrival{
		Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Proto: r.Proto, Headers: r.Header.Clone(), Body: string(body),
	})
	if over := len(a.last) - a.keep; over > 0 {
		a.last = slices.Delete(a.last, 0, over)
	}
}

func (a *arrivals) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = nil
}

// all that are kept, the oldest first.
func (a *arrivals) all() []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]arrival{}, a.last...)
}

func (a *arrivals) showAll(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.all())
}

func (a *arrivals) showLast(w http.ResponseWriter, _ *http.Request) {
	all := a.all()
	if len(all) == 0 {
		http.Error(w, "no request is kept", http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, all[len(all)-1])
}
