// Package webhook sends the events of thresholds to a URL, signed as standardwebhooks.com has it, again and again until
// they are taken: each at least once, whatever process has died before, by one of all processes that have one store.
//
// It must not know what a limit is, nor where events are kept. Read [Sender] first.
package webhook
