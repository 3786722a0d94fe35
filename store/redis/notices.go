package redis

import "context"

// Notices implements store.Outbox. What is told while the connection is away nobody hears, so there is also a notice
// when it is there again.
func (s *Store) Notices(ctx context.Context) <-chan struct{} {
	notices := make(chan struct{}, 1)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed {
		s.leaving.Go(func() { s.listen(ctx, notices) })
	}
	return notices
}

// listen hands on what comes on the channel of events, until ctx is done or the store is closed.
func (s *Store) listen(ctx context.Context, notices chan<- struct{}) {
	sub := s.client.Subscribe(ctx, s.prefix+eventsChannel)
	defer sub.Close()
	heard := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		case <-heard:
		}
		select {
		case notices <- struct{}{}:
		default: // there is one already
		}
	}
}
