// Package access says who a caller is, and what it may call: by tokens, of which a file holds hashes, and by certificates
// that were verified when the connection was made, of which it holds names.
//
// It must not know how a service works, nor which authorities sign certificates; whether a call keeps to the domains and
// subjects of a caller the engine judges (engine.Scope). Read [Gate.Admit] first; docs/access.md is for users.
package access
