// Package redis is the store of counters in Redis: any number of servers share one truth.
//
// Every decision is one run of one script (lua/), atomic in Redis; decisions that come at the same
// time travel in one batch. The server keeps nothing but an estimate of Redis's clock. Only in a Cluster,
// where what a decision needs may lie on several nodes, it is rounds of such runs (span.go).
//
// A step is sent to its node (send.go, nodes.go): written down for the script (encode.go, key.go), it waits for others
// (batch.go), travels (run.go), is decided by the script, and its answer is read (decode.go). The script judges and counts,
// as package limit does, and answers with the states that it leaves buckets in; what they mean, in waits and resets,
// package limit says here.
//
// What a step tells of thresholds the script writes down too (lua/decide/events.lua); outbox.go reads it.
//
// It knows the storage contract (package store) and the arithmetic (package limit), nothing else.
// Read [Store.Apply], then lua/apply.lua and lua/decide/decide.lua.
package redis
