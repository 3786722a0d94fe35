// Package lane holds the arithmetic of lines in which callers wait for their turn: pure functions of what has happened
// and the time, with no I/O, no clock, no context and no logging. It knows the instants of package limit, and nothing
// else of the project.
//
// A line only orders. Whether there is room for whoever is next, limits say: a caller whose turn it is tries, and tells
// the line what came of it. So a line that is lost costs its order, and never admits one too many.
//
// A [Spec] says how a line orders, a [Step] what somebody does, and [Line.Apply] what follows; read them in that order,
// then order.go: who is next. The one permitted copy of this arithmetic is the Lua of store/redis, which the conformance
// suite (store/storetest) holds equal.
//
// Within a class subjects take turns by start-time fair queueing (Goyal, Vin and Cheng, "Start-Time Fair Queueing",
// SIGCOMM 1996), with a virtual time that goes on even where new subjects keep coming, so that none of those who wait for
// a second turn is passed over for ever.
//
// # Bounds
//
// A turn is the longest time from one admission to the next; within it each class can also try in vain. What is tried in
// vain counts for nothing in the order.
//
//   - While one waits that is not paused, and whose waiter lives, one is called.
//   - With aging, a ticket with k turns of its class ahead waits at most (k+1)·(aging + classes·turn): for the turn that is
//     under way when its class has waited for aging, one of each class that waits for longer, and its own.
//   - With weights, what two classes have had for their weights while both waited differs by one largest turn of each.
//     A class that does not wait, or is paused, leaves its share to others, and does not catch up.
//   - With equal costs no subject is called twice while another one of its class waits and is not called. So of a subject's
//     thousand tickets another one that comes waits for one.
//   - With other costs, of two subjects that wait all the time each has as much of it as the other, within one largest ticket
//     of each.
//   - Where new subjects come for ever, with equal costs, between two turns of one that waits there are at most twice as
//     many as subjects wait.
//   - A ticket whose waiter is gone, and for which another comes within AsideLasts, is called before those that were behind it.
//
// Where several are called at once, and are refused after all, a subject may have lost up to a turn of each of its own
// that was refused beside another; the order of those who wait is as it was.
package lane
