// Package redis is the subject directory in Redis: any number of servers share it.
//
// Every change is one run of one script (lua/change.lua), atomic in Redis: the record, its place in the order of names,
// and the audit row. It is written only if the subject still is what it was when the change was worked out, and made
// once however often it is sent. Who is watching is told in the same step, over Redis's publish and subscribe (watch.go).
// API keys are found by an index of their own, which in a Cluster lies on other nodes: claims.go says how the two agree.
//
// It knows the contract (package subject), nothing else. Read [Directory.Change], then lua/change.lua, then key.go for
// where things are.
package redis
