package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store"
)

// toTouch is a command that needs all that a user may do with a key, and nothing but that.
const toTouch = "evalsha"

// toTell and toHear are commands about channels.
const toTell, toHear = "publish", "subscribe"

// commands are what the script has to be allowed, and who waits for events, each with as many words as it must
// have; * is a key, and & a channel. The script itself asks Redis, since users who may ask by ACL DRYRUN may change
// permissions as well, and managed services let nobody.
var commands = []string{
	toTouch + " x 1 *", "eval x 0", "time",
	"get *", "set * x", "del *", "exists *", "incrby * 1", "decrby * 1", "pexpire * 1",
	"getrange * 0 0", "setrange * 0 x", "strlen *",
	"zadd * 0 x", "zscore * x", "zrem * x", "zrange * 0 0", "zrangebyscore * 0 0",
	"hget * x", "hmget * x", "hgetall *", "hset * x x", "hdel * x",
	toTell + " & x", toHear + " &",
}

// ready asks a node whether it would run the script, and whether its user may do what that does; and, where
// they count, whether its replicas follow. It is a few round trips, and writes nothing.
func (s *Store) ready(ctx context.Context, node *redis.Client) error {
	args := make([]any, 0, len(commands)+6)
	args = append(args, "", "", s.prefix+"ration:"+string(appendTag(nil, 0)), s.prefix+eventsChannel)
	for _, c := range commands {
		args = append(args, c)
	}
	if s.cluster != nil {
		args = append(args, "asking")
	}
	if s.replicas > 0 {
		args = append(args, "wait 0 0")
	}
	reply, err := script().Run(ctx, node, nil, args...).Text()
	if err != nil {
		return explain(err)
	}
	a := answer{rest: reply}
	a.number()
	if a.err != nil {
		return a.err
	}
	if err := s.permits(strings.Fields(a.rest)); err != nil {
		return err
	}
	if s.cluster == nil {
		if err := s.alone(ctx, node); err != nil {
			return err
		}
	}
	if s.replicas == 0 {
		return nil
	}
	return s.followed(ctx, node)
}

// alone reports, as ErrUnavailable, that a Redis which the store's URL calls a single one is a node of a Cluster: it would
// decide what happens to lie on it, and refuse the rest. Such a node takes no command about keys of two shards.
func (s *Store) alone(ctx context.Context, node *redis.Client) error {
	one, other := appendOutboxKey(nil, s.prefix, 0, ""), appendOutboxKey(nil, s.prefix, 1, "")
	if err := node.Do(ctx, "exists", one, other).Err(); err != nil {
		return explain(err)
	}
	return nil
}

// followed reports, as ErrUnavailable, that a node has too few replicas.
func (s *Store) followed(ctx context.Context, node *redis.Client) error {
	n, err := node.Do(ctx, "wait", s.replicas, (s.timeout / 2).Milliseconds()).Int()
	if err != nil {
		return explain(err)
	}
	if n < s.replicas {
		return fmt.Errorf("%w: what is written is to be on %d replicas of Redis at %s, of which there are %d",
			store.ErrUnavailable, s.replicas, node.Options().Addr, n)
	}
	return nil
}

// permits makes an error of the commands that are not permitted.
func (s *Store) permits(missing []string) error {
	switch {
	case len(missing) == 0:
		return nil
	case missing[0] == toTouch:
		return fmt.Errorf("%w: NOPERM the user whom ration is to Redis may not read and write its keys: it needs ~%sration:*",
			store.ErrUnavailable, s.prefix)
	}
	needs := "+" + strings.Join(missing, " +")
	if slices.Contains(missing, toTell) || slices.Contains(missing, toHear) {
		needs += ", and &" + s.prefix + "ration:* for its channels"
	}
	return fmt.Errorf("%w: NOPERM the user whom ration is to Redis may not do all that the script does: it needs %s",
		store.ErrUnavailable, needs)
}
