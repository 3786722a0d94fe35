package redis

import (
	"fmt"

	"github.com/rationhq/ration/subject"
)

// A shard's number is the hash tag of its keys: a shard is what Redis Cluster keeps together. A subject's is
// [subject.Ref.Shard], an API key's the first byte of its hash.
//
//	ration:{a017}subjects      hash: 3:llmalice → its record
//	ration:{a017}names|llm     sorted set: the names of one domain, for listing
//	ration:{a017}audit         sorted set: audit rows, in the order of time
//	ration:{a017}changes       string: what lua/change.lua has to remember
//	ration:{a017}api_keys      hash: the hash of an API key → who claims it
//
// Channels, on which changes are told, and on which a server hears itself:
//
//	ration:subjects
//	ration:subjects:0123456789abcdef
func (d *Directory) key(shard uint8, rest string) string {
	return fmt.Sprintf("%sration:{a%03d}%s", d.prefix, shard, rest)
}

func (d *Directory) records(shard uint8) string { return d.key(shard, "subjects") }

func (d *Directory) names(shard uint8, domain string) string { return d.key(shard, "names|"+domain) }

func (d *Directory) audit(shard uint8) string { return d.key(shard, "audit") }

func (d *Directory) changes(shard uint8) string { return d.key(shard, "changes") }

func (d *Directory) apiKeys(hash subject.KeyHash) string { return d.key(hash[0], "api_keys") }

func (d *Directory) channel() string { return d.prefix + "ration:subjects" }
