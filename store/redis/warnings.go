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

func warnings(ctx context.Context, node *redis.Client) (all []string) {
	info := make(map[string]string)
	for _, section := range [...]string{"memory", "persistence"} {
		text, err := node.Info(ctx, section).Result()
		if err != nil {
			return nil
		}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				info[name] = value
			}
		}
	}
	addr := node.Options().Addr
	if most, kept := info["maxmemory"], info["maxmemory_policy"]; most != "0" && kept != "noeviction" && kept != "" {
		all = append(all, fmt.Sprintf("Redis at %s drops counters that still count when it has used %s bytes: its maxmemory-policy "+
			"is %s; set it to noeviction, so that it refuses new ones instead", addr, most, kept))
	}
	if info["aof_enabled"] == "0" {
		if snapshots, err := node.ConfigGet(ctx, "save").Result(); err == nil && snapshots["save"] == "" {
			all = append(all, fmt.Sprintf("Redis at %s keeps nothing on disk: when it ends, what was used this month is forgotten; "+
				"set appendonly to yes", addr))
		}
	}
	return all
}
