package loadgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// overallCode is the one field of a RateLimitResponse that the generator reads.
type overallCode int32

const (
	codeOK        = overallCode(rlsv3.RateLimitResponse_OK)
	codeOverLimit = overallCode(rlsv3.RateLimitResponse_OVER_LIMIT)
)

// A call is a request on its way, and as much of its answer as has arrived.
type call struct {
	// due is when it should have been sent, sent when it was.
	due, sent time.Time
	body      []byte
	method    method
	// then is what to ask when it was answered, with the same id; nil for nothing.
	then *request
	id   uint64
	// failed is why the answer is not one, if it is not.
	failed error
}

// headers takes in the header fields of the answer: at its beginning, at its end, or both in one. At the end grpc-status
// says how the call went.
func (c *call) headers(frame *http2.MetaHeadersFrame) {
	for _, field := range frame.PseudoFields() {
		if field.Name == ":status" && field.Value != "200" {
			c.fail(fmt.Errorf("answer with HTTP status %s", field.Value))
		}
	}
	if !frame.StreamEnded() {
		return
	}
	code, message := "", ""
	for _, field := range frame.RegularFields() {
		switch field.Name {
		case "grpc-status":
			code = field.Value
		case "grpc-message":
			message = field.Value
		}
	}
	if code == "0" {
		return
	}
	number, err := strconv.ParseUint(code, 10, 32)
	if err != nil {
		c.fail(fmt.Errorf("answer with grpc-status %q", code))
		return
	}
	if text, err := url.PathUnescape(message); err == nil {
		message = text
	}
	c.fail(status.Error(codes.Code(number), message))
}

// fail notes why the answer is not one; the first reason is the cause of the others.
func (c *call) fail(reason error) {
	if c.failed == nil {
		c.failed = reason
	}
}

// outcome returns what the complete answer says, and what its reservation is called, if it makes one.
func (c *call) outcome() (overallCode, string, error) {
	if c.failed != nil {
		return 0, "", c.failed
	}
	if len(c.body) < prefixLength {
		return 0, "", fmt.Errorf("answer of %d bytes is not a gRPC message", len(c.body))
	}
	message := c.body[prefixLength:]
	switch length := binary.BigEndian.Uint32(c.body[1:]); {
	case c.body[0] != 0:
		return 0, "", errors.New("answer is compressed, which was not asked for")
	case int(length) != len(message):
		return 0, "", fmt.Errorf("answer of %d bytes announced %d", len(message), length)
	}
	return c.method.outcome(message)
}

// decodeOverallCode returns the first field 1 of an encoded RateLimitResponse, which encoders write first, or 0
// (UNKNOWN) if there is none.
func decodeOverallCode(message []byte) (overallCode, error) {
	for len(message) > 0 {
		number, wireType, length := protowire.ConsumeTag(message)
		if length < 0 {
			return 0, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
		}
		message = message[length:]
		if number == 1 && wireType == protowire.VarintType {
			code, length := protowire.ConsumeVarint(message)
			if length < 0 {
				return 0, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
			}
			return overallCode(code), nil
		}
		length = protowire.ConsumeFieldValue(number, wireType, message)
		if length < 0 {
			return 0, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
		}
		message = message[length:]
	}
	return 0, nil
}

// path is where a method is called.
func (m method) path() string {
	switch m {
	case methodReserve:
		return rationv1.AccountingService_Reserve_FullMethodName
	case methodAcquire:
		return rationv1.AccountingService_Acquire_FullMethodName
	case methodSettle:
		return rationv1.AccountingService_Settle_FullMethodName
	default:
		return rlsv3.RateLimitService_ShouldRateLimit_FullMethodName
	}
}

// requestHeaders are the header fields of every request: those of a gRPC call as Envoy makes it, with a deadline. The
// path is that of RateLimitService.
func requestHeaders(authority string, timeout time.Duration) [][2]string {
	return [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{pathField, methodDecide.path()},
		{":authority", authority},
		{"te", "trailers"},
		{"grpc-timeout", strconv.FormatInt(max(1, timeout.Milliseconds()), 10) + "m"},
		{"content-type", "application/grpc"},
		{"user-agent", "bench-load"},
	}
}

const pathField = ":path"
