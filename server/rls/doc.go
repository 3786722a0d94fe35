// Package rls speaks Envoy's RateLimitService (envoy/service/ratelimit/v3/rls.proto) over gRPC, and
// the same over HTTP as /json. It translates between the wire and package engine and decides
// nothing.
//
// ShouldRateLimit is the one hot method of ration, so its two messages are read and written by hand,
// straight between the network's buffers and the engine's types; the generated types remain the
// truth, and the tests hold the two equal.
//
// Read [Service.answer] first.
package rls
