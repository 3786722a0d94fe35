package policy

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// quiet is how long nothing must have happened before changed files are read: whoever writes
	// them has probably finished then.
	quiet = 50 * time.Millisecond
	// patience is how long changes that never cease put off the reading.
	patience = 500 * time.Millisecond
	// defaultInterval is how often the files are read if nothing tells of changes.
	defaultInterval = 10 * time.Second
)

// Watcher watches the files of a policy and loads them when they change: edited in place, replaced,
// added, removed, or reached through a symbolic link that leads elsewhere now, as Kubernetes updates
// a ConfigMap.
//
// The operating system tells of changes. Where it cannot (network file systems, too few watches)
// they are found by reading the files every interval.
type Watcher struct {
	paths    []string
	opts     Options
	interval time.Duration
	reload   chan struct{}

	mu   sync.Mutex
	last [sha256.Size]byte // the fingerprint of what was loaded last

	blind  bool   // the operating system is not asked
	looked func() // called after every look, if set
}

// NewWatcher returns a watcher of the policy at paths, which are read as [Load] reads them. interval
// is how often they are read even if nothing tells of a change; 0 means every 10 seconds.
func NewWatcher(paths []string, opts Options, interval time.Duration) *Watcher {
	if interval <= 0 {
		interval = defaultInterval
	}
	return &Watcher{paths: paths, opts: opts, interval: interval, reload: make(chan struct{}, 1)}
}

// Load loads the policy as [Load] does. Watch will not call back for what Load has returned.
func (w *Watcher) Load() (*Policy, []Problem, error) {
	f := readFiles(w.paths, w.opts)
	w.differs(f)
	return f.compile(w.opts)
}

// Reload makes Watch load the policy now and call back whether or not it has changed. It does not
// wait.
func (w *Watcher) Reload() {
	select {
	case w.reload <- struct{}{}:
	default: // one is due already
	}
}

// Watch calls changed, as [Load] returns, for every content of the files that differs from the one
// before, good or bad, one call at a time, until ctx ends. The first is what it finds at its start,
// unless Load has returned that.
func (w *Watcher) Watch(ctx context.Context, changed func(*Policy, []Problem, error)) {
	dirs := watchDirs(w.blind)
	defer dirs.close()
	poll := time.NewTicker(w.interval)
	defer poll.Stop()
	settled := time.NewTimer(0)
	<-settled.C
	defer settled.Stop()
	var unsettledSince time.Time

	w.look(dirs, false, changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.reload:
			w.look(dirs, true, changed)
		case <-poll.C:
			w.look(dirs, false, changed)
		case <-settled.C:
			unsettledSince = time.Time{}
			w.look(dirs, false, changed)
		case ev := <-dirs.events():
			if !dirs.concerns(ev) {
				continue
			}
			if unsettledSince.IsZero() {
				unsettledSince = time.Now()
			}
			settled.Reset(max(0, min(quiet, patience-time.Since(unsettledSince))))
		case err := <-dirs.lost():
			if err != nil {
				settled.Reset(quiet)
			}
		}
	}
}

// look loads the policy and calls back if it has changed, or if told to.
func (w *Watcher) look(dirs *dirWatch, force bool, changed func(*Policy, []Problem, error)) {
	const attempts = 3
	dirs.cover(list(w.paths, w.opts))
	f := readFiles(w.paths, w.opts)
	// A directory that has come between is watched only now: what it holds may have changed before.
	for i := 1; i < attempts && dirs.cover(list(w.paths, w.opts)); i++ {
		f = readFiles(w.paths, w.opts)
	}
	if w.differs(f) || force {
		p, warnings, err := f.compile(w.opts)
		changed(p, append(warnings, dirs.problems()...), err)
	}
	if w.looked != nil {
		w.looked()
	}
}

// differs reports whether f is other than what was loaded before, and remembers it.
func (w *Watcher) differs(f *files) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.last
	w.last = f.fingerprint()
	return w.last != before
}
