package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/subject"
)

// An API key belongs to the subject whose record lists it, and is found by a claim, in another slot than the record.
//
// A subject claims a key before its record lists it. A claim whose subject does not list the key means nothing; it is
// either about to, or the claim was left over. So another subject may claim the key only if the one before does not
// list it, and never will: the claim is older than d.abandoned, while a record that relies on a claim is written within
// d.fence of it, or not at all. Both are by the clock of Redis; in a Cluster those of its nodes may differ by the
// time between.
//
// Claims are taken back where that is safe. When a record has been written that does not list the key, the claim that
// was there before the writing: whoever is to list the key after this has to see that record first, and claims anew.
// When a record was not written, the claim for it, if there was none before and nobody has claimed since: nobody else
// can rely on it. Any other stays, for whoever comes next.

// claim is what stands in the index of API keys: see lua/claim.lua.
type claim string

const (
	tokenSize   = 16
	claimHeader = 1 + 16 + tokenSize
)

func (c claim) by() (of subject.Ref, ok bool) {
	if len(c) < claimHeader {
		return subject.Ref{}, false
	}
	return subject.ParseRef(string(c[claimHeader:]))
}

// at is the instant of the claim.
func (c claim) at() (at limit.Micros) {
	for _, digit := range []byte(c[1:17]) {
		at = 10*at + limit.Micros(digit-'0')
	}
	return at
}

// first reports whether there was no claim before it.
func (c claim) first() bool { return c[0] == 'N' }

// claims of one step.
type claims struct {
	d *Directory
	// made are those of the API keys that the step adds, in the order of step.Added.
	made []claim
	// before are those that were there, of the keys that the step removes, in the order of step.Removed.
	before []claim
	step   *subject.Step
}

// claim claims the API keys that a step adds, and looks who claims those that it removes.
func (d *Directory) claim(ctx context.Context, step *subject.Step) (*claims, error) {
	c := &claims{d: d, step: step}
	if err := c.look(ctx); err != nil {
		return nil, err
	}
	for _, hash := range step.Added {
		made, err := d.claimKey(ctx, step.Ref, hash)
		if err != nil {
			c.abandon(ctx)
			return nil, err
		}
		c.made = append(c.made, made)
	}
	return c, nil
}

// look reads the claims of the keys that the step removes, and makes those anew that are missing of the keys that stay:
// Redis has lost them.
func (c *claims) look(ctx context.Context) error {
	var kept []subject.KeyHash
	if c.step.Old != nil && c.step.New != nil {
		for i := range c.step.Old.APIKeys {
			if hash := c.step.Old.APIKeys[i].Hash; c.step.New.Lists(hash) {
				kept = append(kept, hash)
			}
		}
	}
	all := append(append([]subject.KeyHash(nil), c.step.Removed...), kept...)
	if len(all) == 0 {
		return nil
	}
	pipe := c.d.client.Pipeline()
	found := make([]*redis.StringCmd, len(all))
	for i, hash := range all {
		found[i] = pipe.HGet(ctx, c.d.apiKeys(hash), string(hash[:]))
	}
	_, _ = pipe.Exec(ctx) // each says by itself what went wrong
	for i, cmd := range found {
		text, err := cmd.Result()
		switch {
		case err != nil && !errors.Is(err, redis.Nil):
			return explain(err)
		case i < len(c.step.Removed):
			c.before = append(c.before, claim(text))
		case text == "":
			if _, err := c.d.claimKey(ctx, c.step.Ref, all[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimKey claims one API key.
func (d *Directory) claimKey(ctx context.Context, of subject.Ref, hash subject.KeyHash) (claim, error) {
	token := newID()
	replace := claim("")
	for {
		reply, err := d.run(ctx, d.scripts.claim, []string{d.apiKeys(hash)},
			hash[:], of.Encode(), token, string(replace), d.abandoned.Microseconds())
		if err != nil {
			return "", err
		}
		is, _ := reply[1].(string)
		held := claim(is)
		if reply[0] == "MINE" {
			return held, nil
		}
		other, ok := held.by()
		if ok {
			s, found, err := d.Find(ctx, other)
			if err != nil && !errors.Is(err, subject.ErrCorrupt) {
				return "", err
			}
			if found && s.Lists(hash) {
				return "", subject.ErrKeyTaken
			}
		}
		if reply[2] != int64(1) || held == replace {
			return "", errClaimed
		}
		replace = held
	}
}

// until is the instant until which the record may be written; 0: whenever.
func (c *claims) until() (at limit.Micros) {
	for _, made := range c.made {
		if end := made.at() + limit.Micros(c.d.fence.Microseconds()); at == 0 || end < at {
			at = end
		}
	}
	return at
}

// abandon takes back the claims for a record that was not written.
func (c *claims) abandon(ctx context.Context) {
	for i, made := range c.made {
		if made.first() {
			c.d.unclaim(ctx, c.step.Added[i], made)
		}
	}
}

// release takes back the claims of keys that the record lists no more.
func (c *claims) release(ctx context.Context) {
	for i, before := range c.before {
		if by, ok := before.by(); ok && by == c.step.Ref {
			c.d.unclaim(ctx, c.step.Removed[i], before)
		}
	}
}

// unclaim takes a claim back, if it is still the one that counts. If that fails, it is left over.
func (d *Directory) unclaim(ctx context.Context, hash subject.KeyHash, is claim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = d.scripts.unclaim.Run(ctx, d.client, []string{d.apiKeys(hash)}, hash[:], string(is)).Err()
}

// newID returns 16 bytes that nobody else has.
func newID() []byte {
	id := make([]byte, tokenSize)
	_, _ = rand.Read(id) // it never fails
	return id
}
