package redis

import (
	"encoding/hex"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// shards is how many parts the key space has. A shard's number is the hash tag of its keys, so a
// shard is what Redis Cluster keeps together. It is fixed: changing it loses every counter.
const shards = 1024

// shardOf returns the shard of a counter: that of its owner, or its own.
func shardOf(op *store.Op) uint16 {
	if len(op.Owner) == 0 {
		return shardOfName(op.Bucket)
	}
	return shardOfName(op.Owner)
}

func shardOfName(name []byte) uint16 { return uint16(xxhash.Sum64(name) % shards) }

// shardOfLease returns the shard of a lease.
func shardOfLease(id *store.LeaseID) uint16 { return uint16(xxhash.Sum64(id[:]) % shards) }

// appendTag appends the hash tag of a shard, "{s0417}".
func appendTag(b []byte, shard uint16) []byte {
	return append(b, '{', 's', '0'+byte(shard/1000), '0'+byte(shard/100%10), '0'+byte(shard/10%10), '0'+byte(shard%10), '}')
}

// appendKey appends the key of the counter of op. Names of buckets are injective, and so are these:
// what kind of key it is can be seen at its end.
//
//	ration:{s0417}llm|user=alice|60s@1763760000                plain: in the window that starts then
//	ration:{s0417}llm|user=alice|requests|token_bucket|60s:14  strict: the owner has 14 bytes
//	  …#holds                                                  the live holds of such a bucket
//	  …#pending                                                what steps that span shards are promised of it
//
// For those of usage see [appendUsageKey].
func appendKey(b []byte, prefix string, op *store.Op, now limit.Micros) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shardOf(op))
	if op.Manner == limit.Strict {
		if len(op.Owner) > 0 {
			b = append(b, op.Owner...)
			b = append(b, '|')
		}
		b = append(b, op.Bucket...)
		b = append(b, ':')
		return strconv.AppendInt(b, int64(len(op.Owner)), 10)
	}
	b = append(b, op.Bucket...)
	b = append(b, '@')
	start := op.Spec.Start(now)
	if start%limit.Second == 0 {
		return strconv.AppendInt(b, int64(start/limit.Second), 10)
	}
	b = strconv.AppendInt(b, int64(start), 10)
	return append(b, 'u', 's')
}

// appendLeaseKey appends the key of a lease, "ration:{s0417}000102030405060708090a0b0c0d0e0f#lease". In a
// cluster there is one in each shard in which the lease has something, and "…#shards", the directory of
// these, in the lease's own.
func appendLeaseKey(b []byte, prefix string, shard uint16, id *store.LeaseID, suffix string) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shard)
	b = hex.AppendEncode(b, id[:])
	return append(b, suffix...)
}

// The keys of an outbox (lua/decide/events.lua), in a Cluster one in each shard, else in shard 0:
//
//	ration:{s0417}#events          hash: the events, by their IDs
//	ration:{s0417}#events-by-time  sorted set: the IDs
//	ration:{s0417}#undelivered     sorted set: those of what is to be delivered
//
// There is one of this in all, which says who delivers (outbox.go):
//
//	ration:{s0000}#deliverer
//
// On a channel it is told that there may be new events:
//
//	ration:events
const (
	eventsSuffix, timesSuffix, undeliveredSuffix = "#events", "#events-by-time", "#undelivered"

	delivererSuffix = "#deliverer"
	eventsChannel   = "ration:events"
)

var outboxSuffixes = [...]string{eventsSuffix, timesSuffix, undeliveredSuffix}

func appendOutboxKey(b []byte, prefix string, shard uint16, suffix string) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shard)
	return append(b, suffix...)
}

// The keys of a line (lua/line/line.lua), which lie in the shard of its name:
//
//	ration:{s0417}llm|chat#line          hash: the line, its tickets and their subjects
//	ration:{s0417}llm|chat#line-order    sorted set: who is next, and what is due
//	ration:{s0417}llm|chat#line-waiters  sorted set: who waits for tickets, by until when they count as there
//
// On a channel of its own a waiter is told of calls:
//
//	ration:called:000102030405060708090a0b0c0d0e0f
const calledChannel = "ration:called:"

var lineSuffixes = [...]string{"#line", "#line-order", "#line-waiters"}

func appendLineKey(b []byte, prefix string, shard uint16, name []byte, suffix string) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shard)
	b = append(b, name...)
	return append(b, suffix...)
}

// appendUsageKey appends the key of what an owner, or without one a group, has used. An owner has one for all hours of
// a day, and one for all days of a month; a group, of which there is more to tell, has one for each. Its name has so
// many bytes as stand before @, and behind that stands when the time began.
//
//	ration:{s0417}llm|user=alice:3@1763683200#hours   of a day
//	ration:{s0417}llm|user=alice:3@1761955200#days    of a month
//	ration:{s0417}llm|:3@1763726400#hours             of an hour
//	ration:{s0417}llm|:3@1763683200#days              of a day
//	ration:{s0417}llm|:3@1763683200#top-day-1         who has used most of column 1 on a day
//	ration:{s0417}llm|:3@1761955200#top-month-1       and in a month
func appendUsageKey(b []byte, prefix string, shard uint16, group, owner []byte, start limit.Micros, suffix string) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shard)
	b = append(b, group...)
	b = append(b, '|')
	b = append(b, owner...)
	b = append(b, ':')
	b = strconv.AppendInt(b, int64(len(group)), 10)
	b = append(b, '@')
	b = strconv.AppendInt(b, int64(start/limit.Second), 10)
	return append(b, suffix...)
}
