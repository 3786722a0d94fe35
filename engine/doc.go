// Package engine holds the use cases of ration, free of any transport: it joins the policy, which
// says what limits apply, with the store, which counts.
//
// It knows no sockets and no protobuf: the transports in server/ translate to and from its types.
// Read [Engine.Decide] first. What happens when the store cannot decide is in without.go, and what keeps
// callers from waiting for a store that does not answer in guard.go.
package engine
