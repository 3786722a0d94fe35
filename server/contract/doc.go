// Package contract holds ration to the behaviour that users of envoyproxy/ratelimit rely on.
//
// The cases under testdata are request sequences with the answers that envoyproxy/ratelimit gave to them, kept as data.
// The runner starts a rate limit server as its users do, as a process with the established environment names, replays
// the sequences over gRPC and over /json, and compares. It can also record: then it writes the answers of the given
// server into the files. Where ration answers differently on purpose, a case holds both answers and the reason
// (testdata/differences-*.yaml).
//
// The package knows the wire and nothing else: no other package of this module is imported, so that a case is never
// right because the runner and the server share a mistake.
//
// Read testdata/README.md first: it explains the notation of the cases.
package contract
