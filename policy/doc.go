// Package policy is the policy language: it turns YAML into an immutable compiled policy of
// [limit.Spec]s, finds the rule that applies to a descriptor, checks policies for mistakes, says in
// words what each rule means, and watches files for changes.
//
// It knows packages limit and price and nothing else of the project: no stores, no transports, no clock.
//
// A file is read twice over (reader.go), becomes a document (document.go for what the established
// language has, entries.go for what ration adds), and is compiled: rate_limit rules at once (compile.go),
// limits and lanes when all files of a domain are there (draft.go, compilelimit.go, compilelane.go), since they
// need its tiers, and prices after them (compileprices.go), since limits of cost need them.
//
// A policy written for envoyproxy/ratelimit means here what it meant there, down to how its YAML 1.1
// is read (testdata/established.jsonl holds recorded answers). What differs: all errors are found and
// not only the first, with their places; a file that is reached by two names is read once; metadata
// that JSON cannot hold (.nan, .inf) is refused, and metadata is never lost to the key of a metric; a
// value that a second one of the same key overwrites is checked all the same; keys that begin with
// "ration." are refused.
//
// Read [Load], [Domain.Match] and [Limit] first.
package policy
