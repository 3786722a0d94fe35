// Package policy is the policy language: it turns YAML into an immutable compiled policy of
// [limit.Spec]s, finds the rule that applies to a descriptor, checks policies for mistakes, says in
// words what each rule means, and watches files for changes.
//
// It knows package limit and nothing else of the project: no stores, no transports, no clock.
//
// Read [Load] and [Domain.Match] first.
package policy
