package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// event is a part of a stream.
type event struct {
	// name is its type on the wire; empty for those that have none.
	name string
	// data is marshaled as JSON, but for a string, which is sent as it is. Nil is sent as nothing: time passes.
	data any
	// output is how many tokens it carries, reasoning how many of them nobody sees.
	output, reasoning int64
}

// encode writes e as the lines of a server-sent event.
func (e event) encode() ([]byte, error) {
	var lines bytes.Buffer
	if e.name != "" {
		lines.WriteString("event: " + e.name + "\n")
	}
	lines.WriteString("data: ")
	if text, ok := e.data.(string); ok {
		lines.WriteString(text)
	} else {
		data, err := marshal(e.data)
		if err != nil {
			return nil, err
		}
		lines.Write(data)
	}
	lines.WriteString("\n\n")
	return lines.Bytes(), nil
}

// object is JSON whose fields keep their order: the type of an event comes first, as callers may expect.
type object []field

type field struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	for i, f := range o {
		value, err := marshal(f.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", f.name, value)
	}
	return fmt.Appendf(nil, "{%s}", &out), nil
}

// marshal makes JSON in which text stands as it is, so that it has characters of more than one byte.
func marshal(document any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// wire writes the body of an answer as its script wants it: compressed, in pieces, and with a slow end.
type wire struct {
	response http.ResponseWriter
	control  *http.ResponseController
	zip      *gzip.Writer
	split    int
	pace     pace
}

// openWire writes the head of an answer.
func openWire(w http.ResponseWriter, r *http.Request, s script, contentType string) *wire {
	out := &wire{response: w, control: http.NewResponseController(w), split: s.split}
	w.Header().Set("Content-Type", contentType)
	if s.compress && acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		out.zip = gzip.NewWriter(pieces{out})
	}
	w.WriteHeader(http.StatusOK)
	out.pace = pace{perSecond: s.tokensPerSecond, start: time.Now()}
	return out
}

func acceptsGzip(r *http.Request) bool {
	for _, coding := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, parameters, _ := strings.Cut(coding, ";")
		weight := strings.ReplaceAll(parameters, " ", "")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") && weight != "q=0" {
			return true
		}
	}
	return false
}

// send writes bytes and sees to it that they leave.
func (w *wire) send(data []byte) error {
	if w.zip == nil {
		_, err := pieces{w}.Write(data)
		return err
	}
	if _, err := w.zip.Write(data); err != nil {
		return err
	}
	return w.zip.Flush()
}

// finish ends the body.
func (w *wire) finish(ctx context.Context, slowly time.Duration) error {
	if w.zip != nil {
		if err := w.zip.Close(); err != nil {
			return err
		}
	}
	if !sleep(ctx, slowly) {
		return ctx.Err()
	}
	return nil
}

// abort resets the connection, or the stream where HTTP/2 has several on one. It does not return.
func (w *wire) abort() {
	if connection, _, err := w.control.Hijack(); err == nil {
		if tcp, ok := connection.(*net.TCPConn); ok {
			// A connection that lingers for no time is reset and not ended in good order. Where that fails the body
			// is cut off all the same.
			_ = tcp.SetLinger(0)
		}
		_ = connection.Close()
	}
	panic(http.ErrAbortHandler)
}

// pieces flushes everything as soon as it is written, in pieces where the wire is split.
type pieces struct{ wire *wire }

func (p pieces) Write(data []byte) (int, error) {
	written := 0
	for written < len(data) {
		piece := data[written:]
		if n := p.wire.split; n > 0 && n < len(piece) {
			piece = piece[:n]
		}
		n, err := p.wire.response.Write(piece)
		written += n
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		if err == nil {
			err = p.wire.control.Flush()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// pace keeps output to a number of tokens per second. Its zero value has no pace.
type pace struct {
	perSecond float64
	start     time.Time
	produced  int64
}

// produce waits until n more tokens are due, and tells whether the caller is still there.
func (p *pace) produce(ctx context.Context, n int64) bool {
	p.produced += n
	if p.perSecond == 0 || n == 0 {
		return ctx.Err() == nil
	}
	due := p.start.Add(time.Duration(float64(p.produced) / p.perSecond * float64(time.Second)))
	return sleep(ctx, time.Until(due))
}

// sleep waits, and tells whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
