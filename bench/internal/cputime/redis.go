package cputime

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis meters a Redis server by its INFO cpu: used_cpu_user + used_cpu_sys, all threads of the server, to the
// microsecond. The command itself costs the server some 20 µs per reading.
func Redis(client *redis.Client) Meter {
	return func(ctx context.Context) (time.Duration, error) {
		info, err := client.Info(ctx, "cpu").Result()
		if err != nil {
			return 0, fmt.Errorf("CPU time of Redis at %s: %w", client.Options().Addr, err)
		}
		used, err := parseRedisInfo(info)
		if err != nil {
			return 0, fmt.Errorf("CPU time of Redis at %s: %w", client.Options().Addr, err)
		}
		return used, nil
	}
}

// parseRedisInfo adds the two figures of the section that stand for the server itself; used_cpu_*_children and
// used_cpu_*_main_thread are other things.
func parseRedisInfo(info string) (time.Duration, error) {
	var sum float64
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		value, found := infoField(info, name)
		if !found {
			return 0, fmt.Errorf("INFO cpu has no %s", name)
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("INFO cpu, %s: %w", name, err)
		}
		sum += seconds
	}
	return time.Duration(sum * float64(time.Second)), nil
}

func infoField(info, name string) (string, bool) {
	for line := range strings.Lines(info) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); key == name {
			return value, true
		}
	}
	return "", false
}
