package redis

import (
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
	name := op.Owner
	if len(name) == 0 {
		name = op.Bucket
	}
	return uint16(xxhash.Sum64(name) % shards)
}

// appendTag appends the hash tag of a shard, "{s0417}".
func appendTag(b []byte, shard uint16) []byte {
	return append(b, '{', 's', '0'+byte(shard/1000), '0'+byte(shard/100%10), '0'+byte(shard/10%10), '0'+byte(shard%10), '}')
}

// appendKey appends the key of the counter of op in the window that starts at start:
// "ration:{s0417}llm|user=alice|60s@1763760000". Names of buckets are injective, and so are these.
func appendKey(b []byte, prefix string, op *store.Op, shard uint16, start limit.Micros) []byte {
	b = append(b, prefix...)
	b = append(b, "ration:"...)
	b = appendTag(b, shard)
	b = append(b, op.Bucket...)
	b = append(b, '@')
	if start%limit.Second == 0 {
		return strconv.AppendInt(b, int64(start/limit.Second), 10)
	}
	b = strconv.AppendInt(b, int64(start), 10)
	return append(b, 'u', 's')
}
