package subject

import (
	"context"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// CacheOptions of a [Cache]. The zero value is a good choice.
type CacheOptions struct {
	// Entries is how many subjects are remembered, and how many API keys: also that there is none of a name. 0 means
	// 100,000.
	Entries int
	// Unwatched is how long something is trusted while changes are not heard of; 0 means one second.
	Unwatched time.Duration
	// Stale is how long what was known last is answered with where the directory cannot be asked, counted from when
	// it was right for certain; 0 means one hour.
	Stale time.Duration
	// Timeout bounds one question to the directory; 0 means 250 ms.
	Timeout time.Duration
	// Retry is how long the directory is not asked about one subject again that it could not be asked about; 0 means
	// 250 ms.
	Retry time.Duration
	// Clock replaces time.Now. Only tests set it.
	Clock func() time.Time
}

// Cache answers who somebody is, mostly without asking the directory. All methods are safe for concurrent use.
//
// What the directory has said, also that there is no such subject, is trusted as long as [Directory.Watch] tells of
// every change, and dropped at once when it tells of one. Where changes may have gone untold everything is asked for
// anew; until they are told again, an answer is trusted for CacheOptions.Unwatched.
//
// Where the directory cannot be asked, the answer is what was known last, for CacheOptions.Stale, and says so: to
// forget whom the directory has suspended, or who is in which tier, would be worse for an hour than to be late. After
// that, and about those of whom nothing is known, the answer is the directory's error.
type Cache struct {
	directory Directory
	subjects  *table[Ref, *Subject]
	keys      *table[KeyHash, *Ref]
	live      atomic.Bool

	stop    context.CancelFunc
	watcher sync.WaitGroup
}

// Answer is what a [Cache] knows of somebody.
type Answer struct {
	// Subject is shared with others and must not be changed; nil: there is none.
	Subject *Subject
	// Stale says that the directory could not be asked: this is what it said last.
	Stale bool
}

// CacheStats says what a [Cache] has done since it was made.
type CacheStats struct {
	// Entries is how many subjects and API keys it remembers now.
	Entries int
	// Hits were answered from memory, Loads asked the directory, of which Failures got no answer; Stale were answered
	// with what was known last.
	Hits, Loads, Failures, Stale uint64
	// Live says that changes are heard of now.
	Live bool
}

var (
	errClosed   = fmt.Errorf("%w: its cache is closed", ErrUnavailable)
	errKeyNewer = fmt.Errorf("%w: what it said last of the subject is older than its API key", ErrUnavailable)
)

// NewCache makes a cache over a directory, and watches that until [Cache.Close].
func NewCache(d Directory, opts CacheOptions) *Cache {
	or := func(d *time.Duration, usual time.Duration) {
		if *d <= 0 {
			*d = usual
		}
	}
	or(&opts.Unwatched, time.Second)
	or(&opts.Stale, time.Hour)
	or(&opts.Timeout, 250*time.Millisecond)
	or(&opts.Retry, 250*time.Millisecond)
	if opts.Entries <= 0 {
		opts.Entries = 100_000
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	c := &Cache{directory: d}
	seed := maphash.MakeSeed()
	c.subjects = newTable(&opts, func(r Ref) uint64 { return maphash.String(seed, r.Name) }, ownRef, c.find)
	c.keys = newTable(&opts, func(h KeyHash) uint64 { return uint64(h[0]) }, func(h KeyHash) KeyHash { return h }, c.findByKey)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.watcher.Go(func() { d.Watch(ctx, c.heed) })
	return c
}

// Close ends watching the directory. After it the cache answers with what it has, and asks for nothing more.
func (c *Cache) Close() {
	c.stop()
	c.watcher.Wait()
	c.heed(Notice{Kind: Lost})
	c.subjects.close()
	c.keys.close()
}

// Get returns a subject. The strings of the ref may be used again by the caller as soon as it has returned. An error is
// ErrUnavailable, ErrCorrupt, or that of the context.
func (c *Cache) Get(ctx context.Context, of Ref) (Answer, error) {
	if len(of.Domain) > MaxName || len(of.Name) > MaxName {
		return Answer{}, nil // not worth remembering: there can be none
	}
	s, stale, err := c.subjects.get(ctx, of)
	return Answer{s, stale}, err
}

// GetByKey returns the subject that lists the API key of this hash. Errors are as of Get.
func (c *Cache) GetByKey(ctx context.Context, hash KeyHash) (Answer, error) {
	stale := false
	for range 2 {
		of, keyStale, err := c.keys.get(ctx, hash)
		stale = stale || keyStale
		if err != nil || of == nil {
			return Answer{Stale: stale}, err
		}
		a, err := c.Get(ctx, *of)
		stale = stale || a.Stale
		switch {
		case err != nil:
			return Answer{}, err
		case a.Subject != nil && a.Subject.Lists(hash):
			return Answer{a.Subject, stale}, nil
		case a.Stale:
			return Answer{}, errKeyNewer
		}
		c.keys.changed(hash) // the subject says that the key is its no more: whose is it?
	}
	return Answer{Stale: stale}, nil
}

// Stats says what the cache has done.
func (c *Cache) Stats() CacheStats {
	s := CacheStats{Live: c.live.Load()}
	c.subjects.addTo(&s)
	c.keys.addTo(&s)
	return s
}

func ownRef(r Ref) Ref { return Ref{strings.Clone(r.Domain), strings.Clone(r.Name)} }

func (c *Cache) find(ctx context.Context, of Ref) (*Subject, error) {
	s, found, err := c.directory.Find(ctx, of)
	if err != nil || !found {
		return nil, err
	}
	return &s, nil
}

func (c *Cache) findByKey(ctx context.Context, hash KeyHash) (*Ref, error) {
	s, found, err := c.directory.FindByKey(ctx, hash)
	if err != nil || !found {
		return nil, err
	}
	of := s.Ref()
	return &of, nil
}

// heed is told what happens in the directory.
func (c *Cache) heed(n Notice) {
	switch n.Kind {
	case Changed:
		c.subjects.changed(n.Subject)
		for _, hash := range n.Keys {
			c.keys.changed(hash)
		}
	case Live, Lost:
		c.live.Store(n.Kind == Live)
		c.subjects.watched(n.Kind == Live)
		c.keys.watched(n.Kind == Live)
	}
}
