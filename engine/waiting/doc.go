// Package waiting has callers of this process wait for their turn in lines that a store keeps (package lane).
//
// It must not know what they wait for: each caller brings a function that tries, and says what came of it. Read
// [Room.Wait] first. The line calls a ticket, its caller tries, and tells the line, which calls the next; line.go is what
// this process says to a line for all who wait in it here.
package waiting
