// Package access says who a caller is, and what it may call: by tokens, of which a file holds hashes.
//
// It must not know how a service works, nor over which protocol it is called; whether a call keeps to the domains and
// subjects of a token the engine judges (engine.Scope). Read [Gate.Unary] first; docs/access.md is for users.
package access
