package memory

import (
	"github.com/rationhq/ration/limit"
)

// commit writes the states back. Buckets that exist come first: creating one may move others of the
// same owner.
func (d *decision) commit(opened *lease) {
	grown := int64(0)
	for i := range d.work {
		if w := &d.work[i]; w.wrote && w.bucket != nil {
			grown += d.put(w, w.bucket) - w.size
		}
	}
	for i := range d.work {
		if w := &d.work[i]; w.wrote && w.bucket == nil {
			b, bytes := w.shard.create(w.owner, w.name)
			grown += bytes - bucketBytes + d.put(w, b)
		}
	}
	if opened != nil {
		grown += opened.bytes()
		d.leases.changed(opened)
		d.wrote = true
	}
	if grown != 0 {
		d.store.bytes.Add(grown)
	}
}

// put writes the state to its bucket, and returns how many bytes that takes now.
func (d *decision) put(w *work, b *bucket) int64 {
	if w.plain {
		b.setCounted(w.spec, d.now, w.count)
	} else {
		b.state, b.holds = w.state, w.holds
		if b.holds.first() == nil {
			b.holds = nil
		}
		b.keep(w.spec)
	}
	d.wrote = true
	w.shard.changed(b, w.owner, w.name, d.now, d.leases != nil)
	return b.bytes()
}

// mayBeForgotten says that the bucket is as good as none. What was due on it has lapsed.
func (b *bucket) mayBeForgotten(spec *limit.Spec, now limit.Micros) bool {
	return b.holds.first() == nil && now >= spec.Idle(&b.state)+limit.Tolerance
}

// keep says how long the bucket has to be kept.
func (b *bucket) keep(spec *limit.Spec) {
	idle := spec.Idle(&b.state)
	if b.holds != nil {
		idle = max(idle, b.holds.latest)
	}
	b.setIdle(idle + limit.Tolerance)
}
