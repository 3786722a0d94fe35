// Package provider reads what a provider of models says of its own limits in the headers of an answer: how much of each
// is left, when it is whole again, and of a refusal how long to wait.
//
// It is pure, and must not know what follows from that: which limits of a policy are meant, nor what is done with them.
// What cannot be read is told, field by field, and stands in nobody's way. Read [Read] first; which provider says what,
// and where that is documented, is in docs/accounting.md.
package provider
