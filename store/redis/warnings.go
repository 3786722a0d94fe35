package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Warnings says what in the settings of Redis will lose counters that still count, a sentence each; and
// which masters of a cluster cannot decide, since [Store.Ready] is content with any. Where Redis does not
// tell its settings there are none.
func (s *Store) Warnings(ctx context.Context) []string {
	if s.cluster == nil {
		return warnings(ctx, s.single.client)
	}
	var mu sync.Mutex
	var all []string
	_, _ = s.masters(ctx, func(ctx context.Context, node *redis.Client) error {
		found := warnings(ctx, node)
		if err := s.ready(ctx, node); err != nil {
			found = append(found, fmt.Sprintf("Redis at %s decides nothing: %v", node.Options().Addr, err))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return nil
	})
	return all
}

func warnings(ctx context.Context, node *redis.Client) []string {
	info, err := node.Info(ctx, "memory").Result()
	if err != nil {
		return nil
	}
	settings := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			settings[name] = value
		}
	}
	most, kept := settings["maxmemory"], settings["maxmemory_policy"]
	if most == "0" || kept == "noeviction" || kept == "" {
		return nil
	}
	return []string{fmt.Sprintf("Redis at %s drops counters that still count when it has used %s bytes: its maxmemory-policy "+
		"is %s; set it to noeviction, so that it refuses new ones instead", node.Options().Addr, most, kept)}
}
