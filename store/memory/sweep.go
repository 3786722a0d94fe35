package memory

import (
	"maps"
	"time"
)

// sweepForever drops idle buckets, one shard at a time, so that nobody waits for more than a small
// part of the store, until the store is closed.
func (s *Store) sweepForever(pause time.Duration) {
	ticker := time.NewTicker(max(pause, time.Millisecond))
	defer ticker.Stop()
	for next := 0; ; next = (next + 1) % shardCount {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			s.sweep(&s.shards[next])
		}
	}
}

func (s *Store) sweep(sh *shard) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now, before := s.clock(), len(sh.buckets)
	for name, b := range sh.buckets {
		if now >= b.idle {
			delete(sh.buckets, name)
		}
	}
	// A map keeps the room that it once needed: after a flood it is made anew.
	if before >= 1024 && len(sh.buckets) < before/4 {
		kept := make(map[string]*bucket, len(sh.buckets))
		maps.Copy(kept, sh.buckets)
		sh.buckets = kept
	}
}

// Len returns how many buckets the store remembers, idle ones that are not yet swept included.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].buckets)
		s.shards[i].mu.Unlock()
	}
	return n
}
