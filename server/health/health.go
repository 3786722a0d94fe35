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
	asked    bool   // whether the store was ever asked
	reached  bool   // whether it was ever ready
	subjects *error // what the directory of subjects has answered; nil: it was never asked
	policy   bool
	alone    bool // whether the policy says what to do without the store
	failure  *Failure
	draining bool
	changed  []func(Fitness)
}

// Fitness is what those want to know who choose whom to ask.
type Fitness struct {
	// Serving: the server can answer, by the store, or as its policy says while the store is away.
	Serving bool
	// Exact: it can, and by the store. Where there are several servers, one of these is to be preferred.
	Exact bool
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
func (s *State) OnChange(f func(Fitness)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = append(s.changed, f)
	f(s.fitness())
}

// Serving reports whether the server can answer and wants to be asked.
func (s *State) Serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fitness().Serving
}

// fitness: a store that goes takes all servers with it at the same instant, so a server whose policy
// knows what to do then goes on: taken out of service it would answer nobody. One that has never reached
// its store is kept out, for it may have the wrong address or password, and those before it have not.
func (s *State) fitness() Fitness {
	willing, ready := s.policy && !s.draining, s.asked && s.store == nil
	return Fitness{Serving: willing && (ready || s.reached && s.alone), Exact: willing && ready}
}

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
	all := []Component{store, policy, process}
	if s.subjects != nil {
		subjects := Component{Name: "subjects", Serving: *s.subjects == nil}
		if !subjects.Serving {
			subjects.Detail = (*s.subjects).Error()
		}
		all = append(all, subjects)
	}
	return all
}

// LastFailure returns the last attempt at loading a policy if it failed, else nil.
func (s *State) LastFailure() *Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// SetStore reports what the store answered when it was asked whether it is ready.
func (s *State) SetStore(err error) {
	s.change(func() {
		s.asked, s.store, s.reached = true, err, s.reached || err == nil
	})
}

// SetSubjects reports what the directory of subjects answered when it was asked whether it is ready. Decisions are made
// without it, so the fitness stays as it is.
func (s *State) SetSubjects(err error) {
	s.change(func() { s.subjects = &err })
}

// PolicyLoaded reports that a policy is in force, and whether it has limits that say what to do without
// the store.
func (s *State) PolicyLoaded(alone bool) {
	s.change(func() { s.policy, s.alone, s.failure = true, alone, nil })
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
	before := s.fitness()
	f()
	if after := s.fitness(); after != before {
		for _, tell := range s.changed {
			tell(after)
		}
	}
}
