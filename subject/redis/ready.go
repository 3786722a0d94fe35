package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/subject"
)

// toTouch is a command that needs all that a user may do with a key, and nothing but that.
const toTouch = "evalsha"

// commands are what the user has to be allowed, each with as many words as it must have; * is a key, & a channel.
var commands = []string{
	toTouch + " x 1 *", "eval x 0", "time", "get *", "set * x", "hget * x", "hset * x x", "hdel * x",
	"zadd * 0 x", "zrem * x", "zrange * 0 0", "publish & x", "subscribe &",
}

// Ready reports whether Redis would take a change now, and lets its user do all that it takes. It writes nothing. A
// Cluster is ready while any of its masters is.
func (d *Directory) Ready(ctx context.Context) error {
	cluster, ok := d.client.(*redis.ClusterClient)
	if !ok {
		return d.ready(ctx, d.client)
	}
	var ready atomic.Int32
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		err := d.ready(ctx, node)
		if err == nil {
			ready.Add(1)
		}
		return err
	})
	switch {
	case ready.Load() > 0:
		return nil
	case err == nil || errors.Is(err, subject.ErrUnavailable):
		return err
	}
	return explain(err)
}

func (d *Directory) ready(ctx context.Context, node redis.Scripter) error {
	args := []any{d.records(0), d.channel()}
	for _, c := range commands {
		args = append(args, c)
	}
	missing, err := d.scripts.ready.Run(ctx, node, nil, args...).StringSlice()
	switch {
	case err != nil:
		return explain(err)
	case len(missing) == 0:
		return nil
	case missing[0] == toTouch:
		return fmt.Errorf("%w: NOPERM the user whom ration is to Redis may not read and write its keys: it needs ~%sration:*",
			subject.ErrUnavailable, d.prefix)
	}
	return fmt.Errorf("%w: NOPERM the user whom ration is to Redis may not do all that subjects need: it needs +%s, "+
		"and &%sration:* for its channels", subject.ErrUnavailable, strings.Join(missing, " +"), d.prefix)
}
