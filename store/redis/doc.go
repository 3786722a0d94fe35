// Package redis is the store of counters in Redis: any number of servers share one truth.
//
// Every decision is one run of one script (lua/apply.lua), atomic in Redis; decisions that come at
// the same time travel in one batch. The server keeps nothing but an estimate of Redis's clock. Only in
// a Cluster, where what a decision needs may lie on several nodes, it is two rounds of such runs (span.go).
//
// It knows the storage contract (package store) and the arithmetic (package limit), nothing else.
// Read [Store.Apply], then the script.
package redis
