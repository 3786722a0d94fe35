// Package client lets a Go program account for its calls of models with a running ration: reserve before, settle after,
// and lose nothing of it when the server is away.
//
//	c, err := client.New("localhost:8081", client.Options{Journal: "/var/lib/app/ration"})
//	…
//	lease, err := c.Reserve(ctx, client.Call{Caller: client.Caller{Domain: "llm", Attributes: …, Model: …}, Prompt: …})
//	var refusal *client.Refusal
//	if errors.As(err, &refusal) {
//		refusal.WriteResponse(w) // what the user should know, and when to come back
//		return
//	}
//	defer lease.Close() // whatever happens: settles what was observed, or gives everything back
//	…
//	_, err = lease.Settle(ctx, client.Usage{Input: 812, Output: 340})
//
// It has types of its own where the messages of ration.v1 would be clumsy: those hold pointers and locks, and what is
// absent in them has to be asked for. Who wants them uses the generated stubs over [Client.Conn], with the same token and
// the same repeats.
//
// It must not know anything of the server but the API. Read [Client.Reserve] first, then [Lease]; journal.go says how
// reports survive.
package client
