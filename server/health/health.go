// Package health is what the server knows about its own fitness: whether it can decide, and what
// went wrong last. It is told by whoever finds out, and asked by every transport that reports it.
//
// It knows nothing of the rest of the project.
package health

import (
	"sync"
	"time"
)

// State is the fitness of a server. The zero value has no policy and no store, and is not draining.
// It is safe for concurrent use.
type State struct {
	mu       sync.Mutex
	store    error
	asked    bool // whether the store was ever asked
	policy   bool
	failure  *Failure
	draining bool
	changed  []func(serving bool)
}

// Failure is the last attempt at loading a policy, if it failed.
type Failure struct {
	At     time.Time
	Errors []string
}

// Component is the fitness of one part of the server.
type Component struct {
	Name    string
	Serving bool
	Detail  string
}

// OnChange calls f with the overall fitness, now and whenever it changes. f may not call back.
func (s *State) OnChange(f func(serving bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = append(s.changed, f)
	f(s.serving())
}

// Serving reports whether the server can decide and wants to be asked.
func (s *State) Serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving()
}

func (s *State) serving() bool { return s.asked && s.store == nil && s.policy && !s.draining }

// Components reports the fitness of each part.
func (s *State) Components() []Component {
	s.mu.Lock()
	defer s.mu.Unlock()
	store := Component{Name: "store", Serving: s.asked && s.store == nil}
	switch {
	case !s.asked:
		store.Detail = "not asked yet"
	case s.store != nil:
		store.Detail = s.store.Error()
	}
	policy := Component{Name: "policy", Serving: s.policy}
	switch {
	case !s.policy:
		policy.Detail = "no policy loaded"
	case s.failure != nil:
		policy.Detail = "the newest files could not be loaded: the policy before them is in force"
	}
	process := Component{Name: "process", Serving: !s.draining}
	if s.draining {
		process.Detail = "draining"
	}
	return []Component{store, policy, process}
}

// LastFailure returns the last attempt at loading a policy if it failed, else nil.
func (s *State) LastFailure() *Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// SetStore reports what the store answered when it was asked whether it is ready. It returns
// whether that is news.
func (s *State) SetStore(err error) (news bool) {
	s.change(func() {
		news = !s.asked || (s.store == nil) != (err == nil)
		s.asked, s.store = true, err
	})
	return news
}

// PolicyLoaded reports that a policy is in force.
func (s *State) PolicyLoaded() {
	s.change(func() { s.policy, s.failure = true, nil })
}

// PolicyFailed reports that a policy could not be loaded; the one before stays in force.
func (s *State) PolicyFailed(at time.Time, errors []string) {
	s.change(func() { s.failure = &Failure{At: at, Errors: errors} })
}

// Drain reports that the server is about to stop.
func (s *State) Drain() { s.change(func() { s.draining = true }) }

func (s *State) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.serving()
	f()
	if after := s.serving(); after != before {
		for _, tell := range s.changed {
			tell(after)
		}
	}
}
