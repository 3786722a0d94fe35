package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rationhq/ration/server/failure"
)

// ContentTypeStream is that of an answer with many messages: each is JSON on a line of its own.
const ContentTypeStream = "application/x-ndjson"

// DefaultHeartbeat is how often a stream without messages has an empty line where [Options] do not say: proxies cut
// connections off that are silent for long, mostly after a minute.
const DefaultHeartbeat = 15 * time.Second

// writeWithin is how long a caller may take for an answer, or for a message of many.
const writeWithin = 30 * time.Second

// serverStream is a method with one request and many answers.
type serverStream struct {
	service any
	desc    *grpc.StreamDesc
}

// serveStream answers with a message on each line. What ends the stream, but that the caller leaves, is its last line:
// {"error": …}, with google.rpc.Status as in the answers of other methods.
func (g *Gateway) serveStream(w http.ResponseWriter, r *http.Request, m serverStream) {
	body, httpStatus, err := read(w, r)
	if err != nil {
		answerError(w, httpStatus, err)
		return
	}
	ctx, cancel := context.WithCancel(asCall(r))
	defer cancel()
	s := &lines{ctx: ctx, cancel: cancel, body: body, to: w, control: http.NewResponseController(w)}
	var beating sync.WaitGroup
	beating.Go(func() { s.beat(g.opts.Heartbeat) })
	err = g.callStream(m, r.URL.Path, s)
	cancel()
	beating.Wait()
	s.end(failure.Complete(err))
}

// callStream calls the method as a gRPC server would.
func (g *Gateway) callStream(m serverStream, path string, s *lines) (err error) {
	defer g.opts.Guard.Catch(&err)
	if g.opts.Stream == nil {
		return m.desc.Handler(m.service, s)
	}
	info := &grpc.StreamServerInfo{FullMethod: path, IsServerStream: true}
	return g.opts.Stream(m.service, s, info, m.desc.Handler)
}

// lines is the stream of a call: a grpc.ServerStream. Whoever calls the handler may end it before the handler has: then
// nothing is written any more.
type lines struct {
	ctx     context.Context //nolint:containedctx // that of the call, which Context returns
	cancel  context.CancelFunc
	body    []byte
	asked   bool
	control *http.ResponseController

	mu     sync.Mutex
	to     http.ResponseWriter
	begun  bool // the header is on its way
	ended  bool
	header metadata.MD
	last   time.Time // when something was written
}

var errStreamEnded = errors.New("the stream has ended")

func (s *lines) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream.
func (s *lines) SetHeader(h metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = metadata.Join(s.header, h)
	return nil
}

// SendHeader implements grpc.ServerStream: the caller knows then that the call was admitted.
func (s *lines) SendHeader(h metadata.MD) error {
	if err := s.SetHeader(h); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(nil)
}

// SetTrailer implements grpc.ServerStream. Callers over HTTP see none.
func (s *lines) SetTrailer(metadata.MD) {}

// SendMsg implements grpc.ServerStream.
func (s *lines) SendMsg(m any) error {
	text, err := oneLine(m.(proto.Message))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(append(text, '\n'))
}

// RecvMsg implements grpc.ServerStream.
func (s *lines) RecvMsg(m any) error {
	if s.asked {
		return io.EOF
	}
	s.asked = true
	return unmarshal(s.body, m.(proto.Message))
}

// write writes to the caller at once.
func (s *lines) write(b []byte) error {
	if s.ended {
		return errStreamEnded
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeWithin)) // the server's own is for the whole answer
	if !s.begun {
		s.begun = true
		h := s.to.Header()
		h.Set("Content-Type", ContentTypeStream)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // nginx would wait for more
		for key, values := range s.header {
			for _, value := range values {
				h.Add(key, value)
			}
		}
		s.to.WriteHeader(http.StatusOK)
	}
	s.last = time.Now()
	if _, err := s.to.Write(b); err != nil {
		s.cancel()
		return err
	}
	if err := s.control.Flush(); err != nil {
		s.cancel()
		return err
	}
	return nil
}

// beat writes an empty line where nothing else was written for a while, until the stream ends.
func (s *lines) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		if s.begun && !s.ended && time.Since(s.last) >= every/2 {
			_ = s.write([]byte{'\n'}) // an error of it ends the stream
		}
		s.mu.Unlock()
	}
}

// end says why the stream ends, and lets nobody write any more.
func (s *lines) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.ended = true }()
	switch {
	case err == nil && !s.begun:
		_ = s.write(nil)
	case err == nil:
	case !s.begun:
		answerError(s.to, httpStatusOf(status.Code(err)), err)
	default:
		text, encodeErr := oneLine(status.Convert(err).Proto())
		if encodeErr != nil {
			return
		}
		_ = s.write(append(append([]byte(`{"error":`), text...), '}', '\n')) // who has left does not read it
	}
}

// oneLine returns a message as JSON on one line, without white space: protobuf's own is not always the same.
func oneLine(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	err = json.Compact(&line, text)
	return line.Bytes(), err
}
