package memory

import (
	"sync"
	"unique"
	"unsafe"

	"github.com/rationhq/ration/limit"
)

// shard is a part of the buckets, with a lock of its own.
type shard struct {
	mu     sync.Mutex
	alone  map[string]*bucket // buckets without an owner
	owners map[string]*owner
	// due is the earliest instant from which a bucket may be idle: there is nothing to sweep before.
	due    limit.Micros
	usage  usage
	events events
	ledger ledger
}

// owner keeps the buckets of one owner together.
type owner struct {
	buckets []bucket
	// index finds a bucket by its name once there are more than a few; nil before.
	index map[string]int
}

// few buckets are found faster one by one.
const few = 16

// bucket is one counter.
type bucket struct {
	state limit.State
	// life is in one word what would be several, so that three buckets fill an allocation.
	life life
	// holds is what is reserved of it; nil if nothing is.
	holds *holds
	// name is the bucket's name within its owner. Owners have buckets of the same names, which are
	// kept once. Without an owner the map has the name.
	name unique.Handle[string]
}

// life is the instant from which a bucket equals an absent one, so that it may be dropped; and behind
// it what a store with a directory has to know (journal.go).
type life int64

const (
	// dirty: it has changed, and its shard's ledger names it.
	dirty life = 1 << iota
	// stored: there is a record of it on disk, or on its way there.
	stored
	// leased: a step with a lease has changed it, so that it is on disk for as long as it lives.
	leased
	flags    = dirty | stored | leased
	lifeBits = 3
)

func (b *bucket) idle() limit.Micros { return limit.Micros(b.life >> lifeBits) }

func (b *bucket) setIdle(t limit.Micros) { b.life = life(t)<<lifeBits | b.life&flags }

func (sh *shard) init() {
	sh.due = never
	sh.alone = make(map[string]*bucket)
	sh.owners = make(map[string]*owner)
	sh.usage.init()
	sh.events.due = never
}

// find returns the bucket of that name, or nil. It may be used until another one of the same owner
// is created or dropped.
func (sh *shard) find(owner, name []byte) *bucket {
	if len(owner) == 0 {
		return sh.alone[string(name)]
	}
	o := sh.owners[string(owner)]
	if o == nil {
		return nil
	}
	if o.index != nil {
		if i, ok := o.index[string(name)]; ok {
			return &o.buckets[i]
		}
		return nil
	}
	for i := range o.buckets {
		if o.buckets[i].name.Value() == string(name) {
			return &o.buckets[i]
		}
	}
	return nil
}

// create makes the bucket of that name, which is not there yet, and returns about how many bytes it
// takes.
func (sh *shard) create(ownerName, name []byte) (_ *bucket, bytes int64) {
	if len(ownerName) == 0 {
		b := &bucket{}
		sh.alone[string(name)] = b
		return b, bucketBytes + aloneOverhead + int64(len(name))
	}
	bytes = bucketBytes
	o := sh.owners[string(ownerName)]
	if o == nil {
		o = &owner{}
		sh.owners[string(ownerName)] = o
		bytes += ownerBytes + int64(len(ownerName))
	}
	if len(o.buckets) == cap(o.buckets) && len(o.buckets) < few {
		// Few owners have as many buckets as a slice would grow to.
		grown := make([]bucket, len(o.buckets), len(o.buckets)+1)
		copy(grown, o.buckets)
		o.buckets = grown
	}
	o.buckets = append(o.buckets, bucket{name: unique.Make(string(name))})
	if len(o.buckets) > few {
		o.reindex()
	}
	return &o.buckets[len(o.buckets)-1], bytes
}

// reindex completes the index, or makes it.
func (o *owner) reindex() {
	if o.index == nil {
		o.index = make(map[string]int, 2*few)
		for i := range o.buckets {
			o.index[o.buckets[i].name.Value()] = i
		}
		return
	}
	last := len(o.buckets) - 1
	o.index[o.buckets[last].name.Value()] = last
}

// What things take, beside names and what a bucket points to; maps take about a quarter more than
// their content.
const (
	bucketBytes   = int64(unsafe.Sizeof(bucket{}))
	aloneOverhead = 32
	ownerBytes    = int64(unsafe.Sizeof(owner{})) + 56
	entryBytes    = int64(unsafe.Sizeof(limit.Entry{}))
	holdBytes     = int64(unsafe.Sizeof(hold{})) + 16
	leaseBytes    = int64(unsafe.Sizeof(lease{})) + 48
)

// never is later than all instants.
const never = limit.Micros(1<<63 - 1)

// bytes returns about how much memory the bucket takes.
func (b *bucket) bytes() int64 {
	n := bucketBytes
	if b.state.Log != nil {
		n += int64(cap(b.state.Log.Entries)) * entryBytes
	}
	return n
}
