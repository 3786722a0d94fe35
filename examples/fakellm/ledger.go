package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
)

// outcome is how a request ended.
type outcome int

const (
	// completed answers reached their last byte.
	completed outcome = iota
	// limited requests were refused by a rate limit, or by a script with 429.
	limited
	// overloaded requests found too many others, or a script with 503 or 529.
	overloaded
	// failed requests were answered with another error.
	failed
	// broken answers were ended by their script: by an error in the stream or a reset.
	broken
	// aborted answers were ended by the caller, who hung up.
	aborted
)

// party is what a row of the ledger is about.
type party struct {
	API   string `json:"api"`
	Key   string `json:"key"`
	User  string `json:"user"`
	Model string `json:"model"`
}

// counts say what became of requests, and what was served. Requests is the sum of the outcomes and of Open.
type counts struct {
	Requests   int64 `json:"requests"`
	Open       int64 `json:"open"`
	Completed  int64 `json:"completed"`
	Limited    int64 `json:"limited"`
	Overloaded int64 `json:"overloaded"`
	Failed     int64 `json:"failed"`
	Broken     int64 `json:"broken"`
	Aborted    int64 `json:"aborted"`

	// Served is everything; Unfinished the part of it that went into broken and aborted answers.
	Served     tokens `json:"served"`
	Unfinished tokens `json:"unfinished"`
}

func (c *counts) add(more counts) {
	c.Requests += more.Requests
	c.Open += more.Open
	c.Completed += more.Completed
	c.Limited += more.Limited
	c.Overloaded += more.Overloaded
	c.Failed += more.Failed
	c.Broken += more.Broken
	c.Aborted += more.Aborted
	c.Served.add(more.Served)
	c.Unfinished.add(more.Unfinished)
}

// ledger counts by party. Safe for concurrent use.
type ledger struct {
	mu   sync.Mutex
	rows map[party]*counts
}

func newLedger() *ledger { return &ledger{rows: map[party]*counts{}} }

// entry is a request in the ledger, from its arrival to its end. It belongs to one goroutine.
type entry struct {
	ledger *ledger
	counts *counts
	served tokens
}

// open begins the entry of a request.
func (l *ledger) open(p party) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := l.rows[p]
	if row == nil {
		row = &counts{}
		l.rows[p] = row
	}
	row.Requests++
	row.Open++
	return &entry{ledger: l, counts: row}
}

// serve counts tokens that have left.
func (e *entry) serve(t tokens) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.counts.Served.add(t)
	e.served.add(t)
}

// close ends the entry.
func (e *entry) close(how outcome) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.counts.Open--
	switch how {
	case completed:
		e.counts.Completed++
	case limited:
		e.counts.Limited++
	case overloaded:
		e.counts.Overloaded++
	case failed:
		e.counts.Failed++
	case broken:
		e.counts.Broken++
		e.counts.Unfinished.add(e.served)
	case aborted:
		e.counts.Aborted++
		e.counts.Unfinished.add(e.served)
	}
}

// reset forgets everything. Requests that are open end in rows that nobody sees any more.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.rows)
}

// row of the ledger as it is shown.
type row struct {
	party
	counts
}

// balance is the ledger as it is shown: the sum of all rows, and the rows in order of their party.
type balance struct {
	Total counts `json:"total"`
	Rows  []row  `json:"rows"`
}

func (l *ledger) balance() balance {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := balance{Rows: []row{}}
	for p, c := range l.rows {
		b.Rows = append(b.Rows, row{party: p, counts: *c})
		b.Total.add(*c)
	}
	slices.SortFunc(b.Rows, func(x, y row) int {
		return cmp.Or(
			cmp.Compare(x.API, y.API), cmp.Compare(x.Key, y.Key), cmp.Compare(x.User, y.User), cmp.Compare(x.Model, y.Model),
		)
	})
	return b
}

// ServeHTTP shows the ledger.
func (l *ledger) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, l.balance())
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The caller is gone where this fails.
	_ = json.NewEncoder(w).Encode(document)
}
