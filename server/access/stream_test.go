package access_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/rationhq/ration/server/access"
)

// stream is one that a client holds open.
type stream struct {
	grpc.ServerStream
	ctx  context.Context
	sent int
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(any) error {
	s.sent++
	return nil
}

// A stream ends with the right to it, however long it lasts; a new file that says the same of its caller leaves it alone.
func TestStreamsEndWithTheRightToThem(t *testing.T) {
	const may = `certificates: [ { name: app, dns: app.example, may: account } ]`
	for _, c := range []struct{ name, then, want string }{
		{"the same", may + "\n# again", ""},
		{"and another", may[:len(may)-1] + ", { name: b, dns: b.example, may: read } ]", ""},
		{"gone", `certificates: []`, "is verified, but not known"},
		{"may no more", `certificates: [ { name: app, dns: app.example, may: admin } ]`, "does not permit this method"},
		{"for others", `certificates: [ { name: app, dns: app.example, may: account, subjects: user=a } ]`, "has changed meanwhile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			callers := access.NewCallers(nil)
			set := func(file string) {
				list, err := access.Parse([]byte(file))
				if err != nil {
					t.Fatal(err)
				}
				callers.Set(list)
			}
			set(may)
			gate, s := &access.Gate{Callers: callers}, &stream{ctx: shown(t, true, "app.example")}
			info := &grpc.StreamServerInfo{FullMethod: "/ration.v1.UsageService/WatchEvents"}
			err := gate.Stream(nil, s, info, func(_ any, to grpc.ServerStream) error {
				if err := to.SendMsg(nil); err != nil {
					t.Errorf("at first: %v", err)
				}
				set(c.then)
				return to.SendMsg(nil)
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("ended with %v, want %q", err, c.want)
			}
			if want := map[bool]int{true: 2, false: 1}[c.want == ""]; s.sent != want {
				t.Errorf("%d messages were sent, want %d", s.sent, want)
			}
		})
	}
}
