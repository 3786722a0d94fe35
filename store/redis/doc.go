// Package redis is the store of counters in Redis: any number of servers share one truth.
//
// Every decision is one run of one script (lua/apply.lua), atomic in Redis; decisions that come at
// the same time travel in one batch. The server keeps nothing but an estimate of Redis's clock.
//
// It knows the storage contract (package store) and the arithmetic (package limit), nothing else.
// Read [Store.Apply], then the script.
package redis
