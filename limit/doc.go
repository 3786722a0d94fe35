// Package limit holds the vocabulary of limits and their arithmetic: pure integer functions over
// (state, now, amount), with no I/O, no clock, no context and no logging.
//
// It knows nothing else of the project, and everything else may know it. A rule about what a limit
// admits stands here and nowhere else; its one permitted copy is the Lua of store/redis, which the
// conformance suite (store/storetest) holds equal.
//
// Read [Spec] and [Spec.Judge] first.
package limit
