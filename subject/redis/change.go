package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/subject"
)

const (
	// attempts is how often a change is worked out anew because others have changed the subject meanwhile.
	attempts = 20
	// sends is how often a script is sent whose answer does not come.
	sends = 3
)

var (
	errConflict = errors.New("changed meanwhile") // to be tried again
	// errClaimed is for the time in which a claim may still become good.
	errClaimed = fmt.Errorf("%w: another subject was about to get the API key: try again in a minute", subject.ErrConflict)
)

// Change implements subject.Directory.
func (d *Directory) Change(
	ctx context.Context, of subject.Ref, by subject.By, apply func(*subject.Subject) error,
) (subject.Subject, error) {
	var changed subject.Subject
	err := d.repeat(ctx, func() error {
		old, err := d.toChange(ctx, of)
		if err != nil {
			return err
		}
		step, err := subject.Plan(of, old, by, apply)
		if err != nil {
			return err
		}
		if step == nil {
			changed = *old
			return nil
		}
		changed = *step.New
		changed.Revision, err = d.take(ctx, step)
		return err
	})
	if err != nil {
		return subject.Subject{}, err
	}
	return changed, nil
}

// toChange returns what there is, or nil.
func (d *Directory) toChange(ctx context.Context, of subject.Ref) (*subject.Subject, error) {
	record, found, err := d.record(ctx, of)
	if err != nil || !found {
		return nil, err
	}
	s, err := subject.ReadRecordToChange(of, record)
	return &s, err
}

// Delete implements subject.Directory.
func (d *Directory) Delete(ctx context.Context, of subject.Ref, by subject.By) (found bool, err error) {
	err = d.repeat(ctx, func() error {
		var record string
		if record, found, err = d.record(ctx, of); err != nil {
			return err
		}
		old, _ := subject.ReadRecord(of, record) // what cannot be read can be deleted
		step, err := subject.PlanDelete(&old, by)
		if err != nil || !found {
			return err
		}
		_, err = d.take(ctx, step)
		return err
	})
	return found && err == nil, err
}

// repeat tries until the subject is not changed meanwhile.
func (d *Directory) repeat(ctx context.Context, try func() error) error {
	for n := range attempts {
		err := try()
		if !errors.Is(err, errConflict) {
			return err
		}
		most := time.Millisecond << min(n, 7)
		select {
		case <-time.After(rand.N(most)): //nolint:gosec // any pause will do
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return subject.ErrConflict
}

// take makes a step happen, and returns the revision. errConflict: the subject is not what the step was made from.
func (d *Directory) take(ctx context.Context, step *subject.Step) (revision uint64, err error) {
	claims, err := d.claim(ctx, step)
	if err != nil {
		return 0, err
	}
	shard := step.Ref.Shard()
	expected := "NONE"
	if step.Old != nil {
		if expected = strconv.FormatUint(step.Old.Revision, 10); step.Old.Revision == 0 {
			expected = "UNKNOWN"
		}
	}
	until := ""
	if at := claims.until(); at > 0 {
		until = strconv.FormatInt(int64(at), 10)
	}
	keys := []string{d.records(shard), d.names(shard, step.Ref.Domain), d.audit(shard), d.changes(shard)}
	reply, err := d.run(ctx, d.scripts.change, keys,
		step.Ref.Encode(), step.Ref.Name, expected, step.Content, newID(), until,
		step.Row, fmt.Sprintf("%03d", shard), subject.AuditRows, d.channel(), encodeNotice(step))
	switch {
	case err != nil: // it may be written, or will be: the claims stay
		return 0, err
	case reply[0] != "DONE":
		claims.abandon(ctx)
		return 0, errConflict
	}
	claims.release(ctx)
	d.tell(subject.Notice{Kind: subject.Changed, Subject: step.Ref, Keys: step.Keys()})
	number, _ := reply[1].(string)
	revision, err = strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: the revision %q", subject.ErrCorrupt, number)
	}
	return revision, nil
}

// run runs a script that does nothing more if it is sent again. It answers with a list.
func (d *Directory) run(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]any, error) {
	for n := 1; ; n++ {
		reply, err := script.Run(ctx, d.client, keys, args...).Slice()
		var refused redis.Error
		switch {
		case err == nil && len(reply) > 0:
			return reply, nil
		case err == nil:
			return nil, fmt.Errorf("%w: a script has answered nothing", subject.ErrUnavailable)
		case errors.As(err, &refused) || ctx.Err() != nil || n == sends:
			return nil, explain(err)
		}
	}
}

// A notice is, on its way through Redis: the length of the encoded ref in two bytes, the ref, and the hashes of the
// API keys.
func encodeNotice(step *subject.Step) []byte {
	of := step.Ref.Encode()
	b := binary.BigEndian.AppendUint16(nil, uint16(len(of)))
	b = append(b, of...)
	for _, hash := range step.Keys() {
		b = append(b, hash[:]...)
	}
	return b
}

func decodeNotice(text string) (n subject.Notice, ok bool) {
	if len(text) < 2 {
		return n, false
	}
	length, rest := int(binary.BigEndian.Uint16([]byte(text[:2]))), text[2:]
	if length > len(rest) {
		return n, false
	}
	if n.Subject, ok = subject.ParseRef(rest[:length]); !ok {
		return n, false
	}
	size := len(subject.KeyHash{})
	for rest = rest[length:]; len(rest) >= size; rest = rest[size:] {
		n.Keys = append(n.Keys, subject.KeyHash([]byte(rest[:size])))
	}
	return n, rest == ""
}
