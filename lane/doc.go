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
package lane
