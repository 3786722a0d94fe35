package client

import (
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// waitOverOne is how many calls wait over one connection. A server takes so many at a time over one (ration 256, proxies
// 100 and more), and those that free the place that is waited for have to get through.
const waitOverOne = 64

// connections are those over which calls wait for a turn.
type connections struct {
	connect func() (*grpc.ClientConn, error)

	mu     sync.Mutex
	all    []*connection // the first one is that of all other calls too
	closed bool
}

// connection is one of them.
type connection struct {
	conn *grpc.ClientConn
	wait int // so many calls do
}

// take returns a connection for a call that waits, until leave is called.
func (c *connections) take() (conn *grpc.ClientConn, leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.all, func(o *connection) bool { return o.wait < waitOverOne })
	if at < 0 {
		if c.closed {
			return nil, nil, status.Error(codes.Canceled, "the client is closed")
		}
		conn, err := c.connect()
		if err != nil {
			return nil, nil, err
		}
		at, c.all = len(c.all), append(c.all, &connection{conn: conn})
	}
	one := c.all[at]
	one.wait++
	return one.conn, func() { c.leave(one) }, nil
}

// leave ends a call that has waited, and a connection that nobody needs any more.
func (c *connections) leave(one *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.wait--; one.wait == 0 && one != c.all[0] && !c.closed {
		c.all = slices.DeleteFunc(c.all, func(o *connection) bool { return o == one })
		_ = one.conn.Close()
	}
}

func (c *connections) close() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, one := range c.all {
		err = errors.Join(err, one.conn.Close())
	}
	return err
}
