// Package loadgen asks a rate limit service for decisions at a known pace and reports how fast and at what cost the
// answers came. It knows Envoy's RateLimitService v3, and Reserve and Settle of ration.v1, and nothing about any implementation of
// them, ration included: whatever listens on the address is measured in the same way.
//
// Two ways of asking:
//
//   - Closed loop: N callers, each sends its next request when it has the answer to its last. It finds the highest
//     throughput at a concurrency. Its latencies flatter a server that stalls, because while the server stalls nobody
//     asks (coordinated omission).
//   - Open loop: requests are due on a fixed schedule, whether or not earlier ones have been answered, as users'
//     requests are. Latency counts from the instant a request was due, so a stall is felt by all that were due in it.
//
// The generator shares the machine with the server it measures, so it has to be cheap. A caller is a slot on one of a
// few HTTP/2 connections rather than a goroutine: one goroutine per connection reads whatever answers there are and
// writes the next requests in one go, much as Envoy's worker threads do. Requests are encoded beforehand, answers are
// decoded no further than their status and overall_code. A goroutine per caller would be simpler, and on two cores
// would spend as much CPU as the server on waking goroutines up.
//
// Read Run first, then connection.
package loadgen
