// Package limit holds the vocabulary of limits and their arithmetic: pure integer functions over
// (state, now, amount), with no I/O, no clock, no context and no logging.
//
// It knows nothing else of the project, and everything else may know it. A rule about what a limit
// admits stands here and nowhere else; its one permitted copy is the Lua of store/redis, which the
// conformance suite (store/storetest) holds equal.
//
// A [Spec] says what a limit allows, a [State] what has happened on one bucket, a [Status] what
// follows for the next amount. Read them in that order, then algorithm.go: the questions that every
// algorithm answers, each in a file of its own.
//
// Amounts and instants are integers below 2^53; products of two of them are exact (product.go), and
// sums are pinned at [MaxAmount] instead of wrapping.
package limit
