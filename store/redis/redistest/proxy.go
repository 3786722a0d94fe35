package redistest

import (
	"bufio"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and a Redis server and makes the faults of networks. It reads what
// passes, command by command and answer by answer, so that a connection can be cut between the two:
// Redis has run the command, and the client does not know.
//
// It is for commands that have one answer each: not for subscriptions, replication or MONITOR.
type Proxy struct {
	Addr string // host:port

	listener net.Listener
	stop     chan struct{}
	running  sync.WaitGroup

	mu     sync.Mutex
	server string // empty: none
	rule   Rule
	seen   map[string]int
	links  map[*link]struct{}
	closed bool
}

// StartProxy runs a proxy before the server at addr until the test ends. Everything passes, until
// [Proxy.Set] says otherwise.
func StartProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Addr: listener.Addr().String(), listener: listener, stop: make(chan struct{}),
		server: addr, seen: make(map[string]int), links: make(map[*link]struct{}),
	}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL is the proxy as ration's --store takes it.
func (p *Proxy) URL() string { return "redis://" + p.Addr }

// Set lets rule decide on every command from now on; nil lets all pass. A connection whose traffic
// is being swallowed stays as it is.
func (p *Proxy) Set(rule Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// To cuts all connections and leads new ones to the server at addr, as a failover behind a fixed
// address does. With an empty addr new ones end as soon as they are made.
func (p *Proxy) To(addr string) {
	p.mu.Lock()
	p.server = addr
	p.mu.Unlock()
	p.Cut()
}

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close(false)
	}
}

// Seen returns how many commands of these names have come, whatever became of them.
func (p *Proxy) Seen(names ...string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, name := range names {
		n += p.seen[name]
	}
	return n
}

func (p *Proxy) close() {
	close(p.stop)
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Cut()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	addr := p.server
	p.mu.Unlock()
	server, err := net.Dial("tcp", addr) //nolint:noctx // to a loopback port, which answers or refuses at once
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{proxy: p, client: client, server: server.(*net.TCPConn), fates: make(chan *fate, 1024)}
	p.mu.Lock()
	if p.closed || p.server != addr {
		l.close(false)
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()

	var answers sync.WaitGroup
	answers.Go(l.passAnswers)
	l.passCommands()
	answers.Wait()
	l.close(false)
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) judge(name string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[name]++
	if p.rule == nil {
		return Fault{}
	}
	return p.rule(name)
}

// wait waits for d, or until the proxy ends.
func (p *Proxy) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.stop:
	}
}

// waitUntil waits until that is closed, or until the proxy ends; not at all for nil.
func (p *Proxy) waitUntil(closed <-chan struct{}) {
	if closed == nil {
		return
	}
	select {
	case <-closed:
	case <-p.stop:
	}
}

// link is one client's connection, and the proxy's own to the server for it.
type link struct {
	proxy          *Proxy
	client, server *net.TCPConn
	fates          chan *fate // of the commands that Redis has got, in order
}

// fate is what becomes of the answer to one command.
type fate struct {
	fault Fault
	met   chan struct{} // closed when that has happened
}

// passCommands passes the commands of the client on, until there are no more.
func (l *link) passCommands() {
	// What has been passed on is still answered, and what Redis answers is still waited for.
	defer close(l.fates)
	defer l.server.CloseWrite() //nolint:errcheck // it may be closed already
	from := bufio.NewReader(l.client)
	var command []byte
	for {
		var err error
		if command, err = appendValue(command[:0], from); err != nil {
			return
		}
		name, err := nameOf(command)
		if err != nil {
			l.close(false)
			return
		}
		fault := l.proxy.judge(name)
		l.proxy.wait(fault.Delay)
		l.proxy.waitUntil(fault.Until)
		switch fault.Do {
		case CutBefore:
			l.close(fault.Reset)
			return
		case SwallowCommand:
			l.swallow(from)
			return
		default:
		}
		f := &fate{fault: fault, met: make(chan struct{})}
		l.fates <- f
		if _, err = l.server.Write(command); err != nil {
			return
		}
		if fault.Do != Pass {
			// What follows it on this connection comes after the fault.
			<-f.met
		}
	}
}

// swallow reads from the client until that leaves.
func (l *link) swallow(from *bufio.Reader) {
	for _, err := from.Discard(1); err == nil; {
		_, err = from.Discard(1)
	}
}

// passAnswers passes the server's answers on, until there are no more.
func (l *link) passAnswers() {
	from := bufio.NewReader(l.server)
	swallowed := false
	var answer []byte
	for {
		var err error
		if answer, err = appendValue(answer[:0], from); err != nil {
			break // the server has ended the connection, or a fault has
		}
		if answer[0] == '>' { // a push answers nothing
			_, _ = l.client.Write(answer)
			continue
		}
		f, ok := <-l.fates
		if !ok {
			break
		}
		l.proxy.wait(f.fault.AnswerDelay)
		switch f.fault.Do {
		case CutAfter:
			l.close(f.fault.Reset)
		case CutWithin:
			_, _ = l.client.Write(answer[:len(answer)/2])
			l.close(f.fault.Reset)
		case SwallowAnswer:
			swallowed = true
		default:
		}
		if !swallowed {
			_, _ = l.client.Write(answer) // a client that has left is no reason to leave Redis
		}
		close(f.met)
	}
	if !swallowed {
		l.close(false)
	}
	for f := range l.fates {
		close(f.met)
	}
}

// close ends both connections. It may be called more than once.
func (l *link) close(reset bool) {
	if reset {
		_ = l.client.SetLinger(0)
	}
	_ = l.client.Close()
	_ = l.server.Close()
}
