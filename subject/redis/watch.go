package redis

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/subject"
)

// Redis does not say when a message was lost: a connection may be dead without a sign, and the node of a Cluster to
// which it leads be cut off from the others. So a watcher proves to itself, again and again, that it would hear of
// a change: it publishes something on a channel of its own, at every master, as a change would be; each time all of
// that has to come back.

const (
	// beatEvery is how often that is proved, and beatWithin how long it may take: together, and once more the first
	// since the clock is looked at as often as that, they are within what subject.Lost promises.
	beatEvery  = 400 * time.Millisecond
	beatWithin = time.Second
	// Between two attempts to watch.
	shortestPause, longestPause = 10 * time.Millisecond, time.Second
)

// watcher is one call of Watch.
type watcher struct {
	mu   sync.Mutex // told by what comes from Redis, and by changes made here
	to   func(subject.Notice)
	over bool
}

func (w *watcher) tell(n subject.Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.to(n)
	}
}

// tell tells those who watch here of a change that was made here, without the way through Redis.
func (d *Directory) tell(n subject.Notice) {
	d.telling.Lock()
	all := make([]*watcher, 0, len(d.watchers))
	for w := range d.watchers {
		all = append(all, w)
	}
	d.telling.Unlock()
	for _, w := range all {
		w.tell(n)
	}
}

// Watch implements subject.Directory.
func (d *Directory) Watch(ctx context.Context, tell func(subject.Notice)) {
	w := &watcher{to: tell}
	d.telling.Lock()
	d.watchers[w] = true
	d.telling.Unlock()
	defer func() {
		d.telling.Lock()
		delete(d.watchers, w)
		d.telling.Unlock()
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	}()
	var beats sync.WaitGroup // a publication that gets no answer ends with the client's timeout
	defer beats.Wait()
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		if d.listen(ctx, w, &beats) {
			pause = shortestPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // any pause will do
		}
	}
}

// listener is one connection over which changes are heard of.
type listener struct {
	d     *Directory
	to    *watcher
	own   string // the channel on which it hears itself
	beats *sync.WaitGroup

	// live says that changes are heard of, and was told so.
	live bool
	// round is the proof that is under way, or was the last one.
	round round
	sent  chan round
}

// round is one proof: what was published, and what of it has come back.
type round struct {
	number int
	began  time.Time
	sent   []string // nil: it is not known yet
	err    error
	heard  map[string]bool
}

func (r *round) complete() bool {
	for _, payload := range r.sent {
		if !r.heard[payload] {
			return false
		}
	}
	return len(r.sent) > 0
}

// listen watches until changes can no longer be heard of, and reports whether they could.
func (d *Directory) listen(ctx context.Context, w *watcher, beats *sync.WaitGroup) (live bool) {
	l := &listener{d: d, to: w, own: d.channel() + ":" + hex.EncodeToString(newID()), beats: beats, sent: make(chan round, 1)}
	ctx, cancel := context.WithCancel(ctx)
	sub := d.client.Subscribe(ctx, d.channel(), l.own)
	events := make(chan any)
	var receiving sync.WaitGroup
	receiving.Go(func() { receive(ctx, sub, events) })
	l.listen(ctx, events)
	if l.live {
		w.tell(subject.Notice{Kind: subject.Lost})
	}
	cancel()
	_ = sub.Close() // which ends receive
	receiving.Wait()
	return l.live
}

// receive hands on what comes over a subscription, and closes events when that is broken.
func receive(ctx context.Context, sub *redis.PubSub, events chan<- any) {
	defer close(events)
	for {
		event, err := sub.Receive(ctx)
		if err != nil {
			return
		}
		select {
		case events <- event:
		case <-ctx.Done():
			return
		}
	}
}

func (l *listener) listen(ctx context.Context, events <-chan any) {
	ticks := time.NewTicker(beatEvery)
	defer ticks.Stop()
	subscribed := 0
	l.round.began = time.Now()
	for good := true; good; {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-events:
			if !ok {
				return
			}
			if _, is := event.(*redis.Subscription); is {
				if subscribed++; subscribed == 2 { // what is published before is heard by nobody
					l.beat(ctx)
				}
			}
			good = subscribed <= 2 // more of them: the connection was another one meanwhile
			if m, is := event.(*redis.Message); is {
				l.hear(m)
			}
		case sent := <-l.sent:
			l.round.sent, good = sent.sent, sent.err == nil
		case <-ticks.C:
			if l.round.complete() {
				l.beat(ctx)
			} else {
				good = time.Since(l.round.began) <= beatWithin
			}
		}
		if good && !l.live && l.round.complete() {
			l.live = true
			l.to.tell(subject.Notice{Kind: subject.Live})
		}
	}
}

func (l *listener) hear(m *redis.Message) {
	if m.Channel == l.own {
		l.round.heard[m.Payload] = true
		return
	}
	if n, ok := decodeNotice(m.Payload); ok {
		l.to.tell(n)
		return
	}
	if l.live { // something has changed, and a newer ration says what
		l.to.tell(subject.Notice{Kind: subject.Lost})
		l.to.tell(subject.Notice{Kind: subject.Live})
	}
}

// beat begins the next proof.
func (l *listener) beat(ctx context.Context) {
	number := l.round.number + 1
	l.round = round{number: number, began: time.Now(), heard: make(map[string]bool)}
	l.beats.Go(func() { l.sent <- l.d.publish(ctx, l.own, number) })
}

// publish publishes a number at every master.
func (d *Directory) publish(ctx context.Context, channel string, number int) (r round) {
	ctx, cancel := context.WithTimeout(ctx, beatWithin)
	defer cancel()
	cluster, ok := d.client.(*redis.ClusterClient)
	if !ok {
		r.sent = []string{strconv.Itoa(number)}
		r.err = d.client.Publish(ctx, channel, r.sent[0]).Err()
		return r
	}
	var mu sync.Mutex
	r.err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		payload := fmt.Sprint(number, " ", node.Options().Addr)
		mu.Lock()
		r.sent = append(r.sent, payload)
		mu.Unlock()
		return node.Publish(ctx, channel, payload).Err()
	})
	return r
}
