package redis

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/subject"
)

// Options of a directory.
type Options struct {
	// KeyPrefix stands before every key and channel. It may not contain a brace: those mark the shard.
	KeyPrefix string
}

// Directory is the subject.Directory in Redis.
type Directory struct {
	client redis.UniversalClient
	prefix string
	// fence is for how long after a claim a record may be written that lists the API key, and abandoned how old a claim
	// is of which nothing can come any more: see claims.go.
	fence, abandoned time.Duration

	scripts struct{ change, claim, unclaim, ready *redis.Script }

	telling  sync.Mutex
	watchers map[*watcher]bool
}

//go:embed lua
var lua embed.FS

// New returns the directory in the Redis that client is connected to. The client stays the caller's.
//
// It may repeat commands and follow redirections, as go-redis does by itself: nothing is written twice. In a Cluster it
// has to follow them. It must ask masters only.
func New(client redis.UniversalClient, opts Options) (*Directory, error) {
	if strings.ContainsAny(opts.KeyPrefix, "{}") {
		return nil, fmt.Errorf("the key prefix %q contains a brace: leave braces out, they mark the shard", opts.KeyPrefix)
	}
	d := &Directory{
		client: client, prefix: opts.KeyPrefix, fence: 10 * time.Second, abandoned: time.Minute,
		watchers: make(map[*watcher]bool),
	}
	for name, script := range map[string]**redis.Script{
		"change": &d.scripts.change, "claim": &d.scripts.claim, "unclaim": &d.scripts.unclaim, "ready": &d.scripts.ready,
	} {
		source, err := lua.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, err
		}
		*script = redis.NewScript(string(source))
	}
	return d, nil
}

// Find implements subject.Directory.
func (d *Directory) Find(ctx context.Context, of subject.Ref) (subject.Subject, bool, error) {
	record, found, err := d.record(ctx, of)
	if err != nil || !found {
		return subject.Subject{}, false, err
	}
	s, err := subject.ReadRecord(of, record)
	return s, err == nil, err
}

func (d *Directory) record(ctx context.Context, of subject.Ref) (record string, found bool, err error) {
	if !of.CanExist() {
		return "", false, nil
	}
	record, err = d.client.HGet(ctx, d.records(of.Shard()), of.Encode()).Result()
	if errors.Is(err, redis.Nil) {
		return "", false, nil
	}
	return record, err == nil, explain(err)
}

// FindByKey implements subject.Directory.
func (d *Directory) FindByKey(ctx context.Context, hash subject.KeyHash) (subject.Subject, bool, error) {
	text, err := d.client.HGet(ctx, d.apiKeys(hash), string(hash[:])).Result()
	if errors.Is(err, redis.Nil) {
		return subject.Subject{}, false, nil
	}
	if err != nil {
		return subject.Subject{}, false, explain(err)
	}
	of, ok := claim(text).by()
	if !ok {
		return subject.Subject{}, false, fmt.Errorf("%w: it is not readable who has claimed the API key", subject.ErrCorrupt)
	}
	s, found, err := d.Find(ctx, of)
	if err != nil || !found || !s.Lists(hash) { // a claim alone means nothing
		return subject.Subject{}, false, err
	}
	return s, true, nil
}

// explain says what an error of the client means. Also one that Redis has answered says little of what was written: the
// client may have sent the command before, and got no answer.
func explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", subject.ErrUnavailable, err)
}
