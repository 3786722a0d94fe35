package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A connection is the client's side of one HTTP/2 connection, for this one purpose: many short unary calls, driven by
// their answers. Framing and header compression are those of golang.org/x/net/http2; what to say when is decided here.
//
// One goroutine reads. Having handled all that has arrived, it sends what is due and goes back to reading. Others may
// send too (the pacer of an open loop) or give up on calls, so all state is under one lock.
type connection struct {
	conn    net.Conn
	timeout time.Duration
	reader  *bufio.Reader
	// framer reads from reader and writes to out.
	framer *http2.Framer

	lock    sync.Mutex
	out     bytes.Buffer
	headers *headerBlock
	// stream is the number of the next stream.
	stream uint32
	calls  map[uint32]*call
	spare  []*call
	// message is where the message to send is put together.
	message []byte
	// id is that of the next exchange. It begins at random, so that no two runs use the same ones.
	id   uint64
	peer peerSettings
	// window is how many bytes of requests the server is ready to take on this connection.
	window int64
	// received counts bytes of answers since the server was last told that it may send more.
	received uint32
	// assignment is what the connection is to do; nil between runs.
	assignment *assignment
	// blockedSince is since when nothing has been on its way because the server takes nothing; zero if it does.
	blockedSince time.Time
	// lost is why the connection can no longer be used.
	lost error
}

// An assignment is one connection's part of a run.
type assignment struct {
	pacer pacer
	pick  func() *request
	// callers is how many calls may be on their way at a time.
	callers int
	tally   *tally
	// owed are the calls that have to follow others.
	owed []followUp
	// done is closed when nothing is due any more and everything has been answered.
	done chan struct{}
}

// A followUp is a call with what it says by itself: the id of its exchange and, of the second one, the reservation of the
// first.
type followUp struct {
	*request
	id          uint64
	reservation string // of the first one; empty if it made none
}

// peerSettings are what the server's SETTINGS say, as far as it matters here.
type peerSettings struct {
	maxStreams   uint32
	streamWindow uint32
}

const (
	// answerWindow is how many bytes of one answer the server may send unasked, and connectionWindow how many of all
	// answers together. Both are so large that they never hold a server up, as Envoy's are.
	answerWindow     = 1 << 20
	connectionWindow = 1 << 30
	// lastStream is the highest number that a stream of a client can have.
	lastStream = math.MaxInt32
	// bufferSize is enough for a hundred answers at a time.
	bufferSize = 32 << 10
)

// newConnection begins to talk HTTP/2 over conn, which it will close.
func newConnection(conn net.Conn, authority string, timeout time.Duration) (*connection, error) {
	c := &connection{
		conn: conn, timeout: timeout, reader: bufio.NewReaderSize(conn, bufferSize),
		headers: newHeaderBlock(requestHeaders(authority, timeout)),
		stream:  1, calls: make(map[uint32]*call), id: rand.Uint64(),
		// What HTTP/2 says until the server says otherwise.
		peer: peerSettings{maxStreams: math.MaxUint32, streamWindow: 65535}, window: 65535,
	}
	c.framer = http2.NewFramer(&c.out, c.reader)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.SetReuseFrames()

	c.out.WriteString(http2.ClientPreface)
	err := errors.Join(
		c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: answerWindow},
		),
		c.framer.WriteWindowUpdate(0, connectionWindow),
		c.flush(),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go c.read()
	return c, nil
}

func (c *connection) close() error { return c.conn.Close() }

// assign starts a part of a run. The one before must be done.
func (c *connection) assign(a *assignment) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.assignment = a
	err := c.lost
	if err == nil {
		err = c.pump(time.Now())
	}
	if err != nil {
		c.lose(err)
	}
}

// maxStreams is how many calls the server allows at a time.
func (c *connection) maxStreams() uint32 {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.peer.maxStreams
}

// poke sends what is due, and gives up on calls that have been on their way for longer than the timeout.
func (c *connection) poke(now time.Time, expire bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.lost != nil {
		return
	}
	var err error
	if expire {
		err = c.expire(now)
	}
	if err = errors.Join(err, c.pump(now)); err != nil {
		c.lose(err)
	}
}

// expire gives up on calls that have been on their way for too long, and on a server that takes no calls for as long.
func (c *connection) expire(now time.Time) error {
	for stream, call := range c.calls {
		if now.Sub(call.sent) <= c.timeout {
			continue
		}
		call.fail(c.tooLate())
		c.answered(stream, call, now)
		if err := c.framer.WriteRSTStream(stream, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	switch {
	case c.assignment == nil || len(c.calls) > 0 || c.canSend():
		c.blockedSince = time.Time{}
	case c.blockedSince.IsZero():
		c.blockedSince = now
	case now.Sub(c.blockedSince) > c.timeout:
		return fmt.Errorf("the server has taken no requests for %v: it allows %d bytes and %d calls at a time",
			c.timeout, c.window, c.peer.maxStreams)
	}
	return nil
}

// canSend reports whether HTTP/2's limits leave room for one more request.
func (c *connection) canSend() bool {
	return uint32(len(c.calls)) < c.peer.maxStreams && c.window >= maxRequest
}

func (c *connection) tooLate() error {
	return status.Errorf(codes.DeadlineExceeded, "no answer within %v", c.timeout)
}

// read handles whatever the server sends, until the connection ends.
func (c *connection) read() {
	for {
		frame, err := c.framer.ReadFrame()
		c.lock.Lock()
		if err == nil {
			err = c.handle(frame)
		}
		if err == nil && c.reader.Buffered() == 0 {
			err = c.pump(time.Now())
		}
		if err != nil {
			c.lose(err)
		}
		c.lock.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *connection) handle(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.MetaHeadersFrame:
		call := c.calls[frame.StreamID]
		if call == nil {
			return nil // given up
		}
		call.headers(frame)
		if frame.StreamEnded() {
			c.answered(frame.StreamID, call, time.Now())
		}
	case *http2.DataFrame:
		// The server counts padding too.
		if c.received += frame.Length; c.received > connectionWindow/2 {
			if err := c.framer.WriteWindowUpdate(0, c.received); err != nil {
				return err
			}
			c.received = 0
		}
		call := c.calls[frame.StreamID]
		if call == nil {
			return nil
		}
		call.body = append(call.body, frame.Data()...)
		if frame.StreamEnded() {
			call.fail(errors.New("answer without grpc-status"))
			c.answered(frame.StreamID, call, time.Now())
		}
	case *http2.RSTStreamFrame:
		if call := c.calls[frame.StreamID]; call != nil {
			now := time.Now()
			if now.Sub(call.sent) >= c.timeout {
				// The server has kept to the deadline by itself, a moment before we noticed.
				call.fail(c.tooLate())
			}
			call.fail(fmt.Errorf("the server reset the stream: %v", frame.ErrCode))
			c.answered(frame.StreamID, call, now)
		}
	case *http2.SettingsFrame:
		return c.settings(frame)
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			c.window += int64(frame.Increment)
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return c.framer.WritePing(true, frame.Data)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server closes the connection: GOAWAY %v %q", frame.ErrCode, frame.DebugData())
	}
	return nil
}

func (c *connection) settings(frame *http2.SettingsFrame) error {
	if frame.IsAck() {
		return nil
	}
	if streams, given := frame.Value(http2.SettingMaxConcurrentStreams); given {
		c.peer.maxStreams = streams
	}
	if window, given := frame.Value(http2.SettingInitialWindowSize); given {
		c.peer.streamWindow = window
	}
	if size, given := frame.Value(http2.SettingHeaderTableSize); given {
		c.headers.limitTable(size)
	}
	return c.framer.WriteSettingsAck()
}

// pump sends what has to follow, also after the end of the run, and the requests that are due, as far as callers are free and the server takes them, and all else that is to
// be written. If then nothing is left to do, the assignment is done.
func (c *connection) pump(now time.Time) error {
	if a := c.assignment; a != nil {
		for len(c.calls) < a.callers && c.canSend() {
			if last := len(a.owed) - 1; last >= 0 {
				next := a.owed[last]
				a.owed = a.owed[:last]
				if err := c.send(next, now, now); err != nil {
					return err
				}
				continue
			}
			due, isDue := a.pacer.next(now)
			if !isDue {
				break
			}
			record(a.tally.lateness, now.Sub(due))
			c.id++
			if err := c.send(followUp{request: a.pick(), id: c.id}, due, now); err != nil {
				return err
			}
		}
		if a.pacer.finished(now) && len(c.calls) == 0 && len(a.owed) == 0 {
			c.finish()
		}
	}
	return c.flush()
}

// maxRequest is the longest request that is sent, in one DATA frame of the size that every server must take.
const maxRequest = 16384

func (c *connection) send(question followUp, due, now time.Time) error {
	message := question.message
	if len(question.ids)+len(question.reservations) > 0 {
		c.message = question.appendTo(c.message[:0], question.id, question.reservation)
		message = c.message
	}
	switch {
	case len(message) > maxRequest || uint32(len(message)) > c.peer.streamWindow:
		return fmt.Errorf("a request of %d bytes is too long for the server, or for this generator", len(message))
	case c.stream > lastStream:
		return errors.New("all stream numbers of the connection are used up")
	}
	stream := c.stream
	c.stream += 2
	c.window -= int64(len(message))
	sent := c.newCall(due, now)
	sent.method, sent.then, sent.id = question.method, question.then, question.id
	c.calls[stream] = sent
	return errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.headers.next(question.method), EndHeaders: true}),
		c.framer.WriteData(stream, true, message),
	)
}

// newCall returns a call, with the buffer of one that is over if there is one.
func (c *connection) newCall(due, sent time.Time) *call {
	if len(c.spare) == 0 {
		return &call{due: due, sent: sent}
	}
	last := len(c.spare) - 1
	reused := c.spare[last]
	c.spare = c.spare[:last]
	*reused = call{due: due, sent: sent, body: reused.body[:0]}
	return reused
}

// answered counts a call that has ended, in whatever way.
func (c *connection) answered(stream uint32, call *call, now time.Time) {
	delete(c.calls, stream)
	code, reservation, err := call.outcome()
	c.assignment.tally.answered(code, err, now.Sub(call.due), now)
	if call.then != nil && err == nil && code == codeOK {
		c.assignment.owed = append(c.assignment.owed, followUp{call.then, call.id, reservation})
	}
	c.spare = append(c.spare, call)
}

// flush writes to the network. A server that takes nothing for as long as a call may last is lost.
func (c *connection) flush() error {
	if c.out.Len() == 0 {
		return nil
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// lose gives the connection up: calls on their way have failed, and nothing more will be sent.
func (c *connection) lose(reason error) {
	if c.lost == nil {
		c.lost = fmt.Errorf("connection lost: %w", reason)
		_ = c.conn.Close() // there is no better error than the reason
	}
	now := time.Now()
	for stream, call := range c.calls {
		call.failed = c.lost
		c.answered(stream, call, now)
	}
	if c.assignment != nil {
		// One error at least, even if no call was on its way.
		if c.assignment.tally.firstError == nil {
			c.assignment.tally.answered(0, c.lost, 0, now)
		}
		c.finish()
	}
}

// finish ends the assignment. The tally is the caller's from here on.
func (c *connection) finish() {
	close(c.assignment.done)
	c.assignment = nil
}

// A headerBlock is the compressed header of the requests, which is the same for all calls of a method. The first time it puts
// its fields into the server's table; from the second time on it refers to them, and does not change any more. The path is in
// the table for RateLimitService only: those of other methods are spelled out, so that nothing moves within the table.
type headerBlock struct {
	fields  [][2]string
	encoder *hpack.Encoder
	scratch bytes.Buffer
	encoded [methods][]byte
	// times is how often each block has been encoded with the table as it is.
	times [methods]int
}

func newHeaderBlock(fields [][2]string) *headerBlock {
	block := &headerBlock{fields: fields}
	block.encoder = hpack.NewEncoder(&block.scratch)
	return block
}

// next returns the block to send now; it is valid until the next call.
func (b *headerBlock) next(m method) []byte {
	if b.times[m] < 2 {
		if m == methodDecide {
			b.times = [methods]int{methodDecide: b.times[m]} // it moves what the others refer to
		}
		b.times[m]++
		b.scratch.Reset()
		for _, field := range b.fields {
			written := hpack.HeaderField{Name: field[0], Value: field[1]}
			if m != methodDecide && field[0] == pathField {
				written.Value, written.Sensitive = m.path(), true
			}
			// Writing to a bytes.Buffer does not fail.
			_ = b.encoder.WriteField(written)
		}
		b.encoded[m] = append(b.encoded[m][:0], b.scratch.Bytes()...)
	}
	return b.encoded[m]
}

// limitTable obeys the server's wish for a smaller table.
func (b *headerBlock) limitTable(size uint32) {
	b.encoder.SetMaxDynamicTableSizeLimit(size)
	b.times = [methods]int{}
}
