package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
)

// Source has the events that are to be sent: an [engine.Outbox].
type Source interface {
	Undelivered(ctx context.Context) ([]engine.Undelivered, error)
	Delivered(ctx context.Context, delivered ...engine.Undelivered) error
	Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error)
	Notices(ctx context.Context) <-chan struct{}
}

// Options of a sender. URL and Secrets have to be set.
type Options struct {
	URL     *url.URL // see ParseURL
	Secrets []Secret // see ParseSecrets
	// Log hears of what cannot be sent; nil: nobody does.
	Log *slog.Logger
	// Timeout is how long the receiver has to answer; 0: 10 s.
	Timeout time.Duration
	// FirstPause is how long an event waits that was not taken once, about; it doubles with each try, up to 10 minutes.
	// 0: a second.
	FirstPause time.Duration
	// GiveUp is how old an event may become before it is tried no more; 0: a day.
	GiveUp time.Duration
	// Lease is for how long a process is the one to send, unless it says so again; 0: 30 s. It is longer than Timeout.
	Lease time.Duration
}

const (
	// mostAtOnce is how many events are on their way at the same time at most, so that one that is stuck holds none up.
	mostAtOnce = 8
	// longestPause bounds the wait between two tries.
	longestPause = 10 * time.Minute
	// askWithin bounds the wait for the source.
	askWithin = 5 * time.Second
	// tellWithin bounds how long it takes to tell it, also while the process ends.
	tellWithin = 2 * time.Second
	// restBetween is the least time between two questions to it, and restTimes how much longer than a question the time is
	// to the next: where much waits for a receiver that is away, the store is not asked for all of it at every new event.
	restBetween, restTimes = 20 * time.Millisecond, 10
)

// ParseURL reads a URL to which events can be sent. Its errors do not hold it, since there may be a secret in it.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL: write it as https://example.com/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it begins neither with https:// nor with http://")
	case u.Hostname() == "":
		return nil, errors.New("it names no host: write it as https://example.com/path")
	}
	return u, nil
}

// Sender sends the events of a source to a URL. It is a prometheus.Collector.
type Sender struct {
	source Source
	opts   Options
	client *http.Client
	who    [16]byte
	until  time.Time // this process is the one to send until then
	queue  map[string]*delivery
	busy   int
	ended  chan *delivery
	*metrics

	lookAt     time.Time // when the source is to be asked next
	notBefore  time.Time // until when it is not asked, even if there is something new
	lastWarned time.Time
}

// delivery is an event on its way.
type delivery struct {
	event    engine.Undelivered
	tries    int
	due      time.Time
	busy     bool
	settled  bool // it was taken, or is given up: only the source has to know
	answer   answer
	reported error // of telling the source
}

// New returns a sender, which sends nothing before Run.
func New(source Source, opts Options) *Sender {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	for value, fallback := range map[*time.Duration]time.Duration{
		&opts.Timeout: 10 * time.Second, &opts.FirstPause: time.Second, &opts.GiveUp: 24 * time.Hour, &opts.Lease: 30 * time.Second,
	} {
		if *value <= 0 {
			*value = fallback
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.DisableCompression = mostAtOnce, true
	s := &Sender{
		source: source, opts: opts, queue: make(map[string]*delivery), ended: make(chan *delivery, mostAtOnce), metrics: newMetrics(),
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	_, _ = rand.Read(s.who[:]) // never fails
	return s
}

// Run sends until ctx ends. It is called once.
func (s *Sender) Run(ctx context.Context) {
	var posts sync.WaitGroup
	defer s.client.CloseIdleConnections()
	defer s.resign(ctx)
	defer posts.Wait()
	notices := s.source.Notices(ctx)
	for {
		if now := time.Now(); !now.Before(s.lookAt) {
			s.elect(ctx)
			s.look(ctx)
			looked := time.Now()
			s.notBefore = looked.Add(max(restBetween, restTimes*looked.Sub(now)))
			s.lookAt = looked.Add(s.opts.Lease/6 + mathrand.N(s.opts.Lease/6)) //nolint:gosec // it spreads replicas
		}
		s.start(ctx, &posts)
		wake := time.NewTimer(s.sleep())
		select {
		case <-ctx.Done():
			wake.Stop()
			return
		case _, ok := <-notices:
			if !ok {
				notices = nil
				break
			}
			if s.notBefore.Before(s.lookAt) {
				s.lookAt = s.notBefore
			}
		case d := <-s.ended:
			s.conclude(d)
		case <-wake.C:
		}
		wake.Stop()
	}
}

// elect makes this process the one to send, if no other is.
func (s *Sender) elect(ctx context.Context) {
	if time.Until(s.until) > s.opts.Lease*2/3 {
		return // not on every notice
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	from := time.Now()
	elected, err := s.source.Deliver(ctx, s.who, limit.Micros(s.opts.Lease/time.Microsecond))
	switch {
	case err != nil: // what was promised before still holds
		s.warn(ctx, "who is to send events cannot be found out: they wait", err)
	case elected:
		s.until = from.Add(s.opts.Lease)
	default:
		s.until = time.Time{}
	}
}

// resign lets another process send at once.
func (s *Sender) resign(ctx context.Context) {
	if s.until.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = s.source.Deliver(ctx, s.who, 0) // it ends by itself, too
}

// elected says that there is time left to send something.
func (s *Sender) elected() bool { return time.Until(s.until) > s.opts.Timeout/2 }

// look finds what is to be sent.
func (s *Sender) look(ctx context.Context) {
	if !s.elected() {
		for id, d := range s.queue {
			if !d.busy {
				delete(s.queue, id) // another sends it
			}
		}
		s.waiting.Set(float64(len(s.queue)))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := s.source.Undelivered(ctx)
	if err != nil {
		s.warn(ctx, "the events to send cannot be read: they wait", err)
		return
	}
	still := make(map[string]bool, len(all))
	for i := range all {
		id := all[i].ID
		if still[id] = true; s.queue[id] == nil {
			s.queue[id] = &delivery{event: all[i], due: time.Now()}
		}
	}
	for id, d := range s.queue {
		if !still[id] && !d.busy {
			delete(s.queue, id)
		}
	}
	s.waiting.Set(float64(len(s.queue)))
}

// start sends what is due, the oldest first.
func (s *Sender) start(ctx context.Context, posts *sync.WaitGroup) {
	now := time.Now()
	for s.busy < mostAtOnce && s.elected() && ctx.Err() == nil {
		var next *delivery
		for _, d := range s.queue {
			if !d.busy && !d.due.After(now) && (next == nil || d.event.At < next.event.At) {
				next = d
			}
		}
		if next == nil {
			return
		}
		next.busy = true
		s.busy++
		posts.Go(func() {
			s.deliver(ctx, next)
			s.ended <- next // there is room for all that are busy
		})
	}
}

// deliver sends an event, and tells the source where that need not be tried again.
func (s *Sender) deliver(ctx context.Context, d *delivery) {
	if !d.settled {
		d.tries++
		d.answer = s.post(ctx, &d.event.Event)
		old := time.Since(d.event.At.Time()) > s.opts.GiveUp
		d.settled = d.answer.taken || d.answer.gone || old && ctx.Err() == nil
	}
	if d.settled {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin)
		defer cancel()
		d.reported = s.source.Delivered(ctx, d.event)
	}
}

// conclude notes what became of a try.
func (s *Sender) conclude(d *delivery) {
	d.busy = false
	s.busy--
	ctx := context.Background()
	switch {
	case d.settled && d.reported != nil:
		s.warn(ctx, "an event was sent, but the store does not know: it may be sent again", d.reported)
	case d.answer.taken:
		s.delivered.Inc()
	case d.settled:
		s.abandoned.Inc()
		s.opts.Log.Error("an event is given up: nobody has taken it", "receiver", s.opts.URL.Host, "event", d.event.ID, "limit", d.event.Limit,
			"tries", d.tries, "error", d.answer.why)
	default:
		s.failed.Inc()
		s.warn(ctx, "an event was not taken: it is sent again, for a day", d.answer.why)
	}
	if d.settled && d.reported == nil {
		delete(s.queue, d.event.ID)
		s.waiting.Set(float64(len(s.queue)))
		return
	}
	d.due = time.Now().Add(max(s.pause(max(1, d.tries)), d.answer.after))
}

// pause returns how long to wait after so many tries: twice as long as before, more or less.
func (s *Sender) pause(tries int) time.Duration {
	pause := longestPause
	if shift := tries - 1; shift < 20 {
		pause = min(pause, s.opts.FirstPause<<shift)
	}
	return pause/2 + mathrand.N(pause) //nolint:gosec // it spreads what is sent, and hides nothing
}

// sleep returns how long nothing needs to be done, if nothing happens.
func (s *Sender) sleep() time.Duration {
	wake := s.lookAt
	if s.busy < mostAtOnce && s.elected() {
		for _, d := range s.queue {
			if !d.busy && d.due.Before(wake) {
				wake = d.due
			}
		}
	}
	return max(time.Until(wake), time.Millisecond)
}

// warn says what keeps events back, once a minute at most.
func (s *Sender) warn(ctx context.Context, text string, err error) {
	if errors.Is(err, context.Canceled) || ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the process ends
	}
	if now := time.Now(); now.Sub(s.lastWarned) >= time.Minute {
		s.lastWarned = now
		s.opts.Log.Warn("the webhook, of which this is said once a minute at most", "problem", text, "receiver", s.opts.URL.Host, "error", err)
	}
}
