package loadgen

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Account is the call of a model that is accounted for: reserved and, when that was answered, settled. Each of the two
// counts as a call by itself.
type Account struct {
	// Attributes of the caller, each as "key=value", with the placeholders of [Mix.Descriptors].
	Attributes []string
	// Model that is called.
	Model string
	// Lane, if it names one, is where the call waits for its turn: it is acquired instead of reserved.
	Lane string
	// Estimate is what is reserved, and Used what is settled.
	Estimate, Used Tokens
}

// Tokens are those of a call.
type Tokens struct{ Input, Output int64 }

func (t Tokens) message() *rationv1.Usage {
	return &rationv1.Usage{InputTokens: t.Input, OutputTokens: t.Output}
}

// reservationLength is the length of the id of a reservation, and reservationPlace keeps the place of one in an encoded request.
const (
	reservationLength = 32
	reservationPlace  = "{reservation}" + "..................."
)

// Reserve returns the first call of an exchange about a key; its id is the call's idempotency key.
func (m Mix) Reserve(key, id string) (*rationv1.ReserveRequest, error) {
	return m.reserve(subject{key: key, id: id})
}

func (m Mix) reserve(s subject) (*rationv1.ReserveRequest, error) {
	caller := &rationv1.Caller{Domain: m.Domain, Model: m.Account.Model, Attributes: map[string]string{}}
	for _, text := range m.Account.Attributes {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("attribute %q: want key=value", text)
		}
		value, err := s.fill(value)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", text, err)
		}
		caller.Attributes[name] = value
	}
	return &rationv1.ReserveRequest{
		Caller: caller, IdempotencyKey: s.id,
		Estimate: &rationv1.Estimate{Of: &rationv1.Estimate_Usage{Usage: m.Account.Estimate.message()}},
	}, nil
}

// Acquire returns the first call of an exchange whose account waits in a lane.
func (m Mix) Acquire(key, id string) (*rationv1.AcquireRequest, error) {
	reserve, err := m.Reserve(key, id)
	if err != nil {
		return nil, err
	}
	return m.acquire(reserve), nil
}

func (m Mix) acquire(reserve *rationv1.ReserveRequest) *rationv1.AcquireRequest {
	return &rationv1.AcquireRequest{
		Caller: reserve.Caller, IdempotencyKey: reserve.IdempotencyKey, Estimate: reserve.Estimate,
		Wait: &rationv1.Wait{Lane: m.Account.Lane},
	}
}

// Settle returns the second call of an exchange.
func (m Mix) Settle(reservation string) *rationv1.SettleRequest {
	return &rationv1.SettleRequest{ReservationId: reservation, Usage: m.Account.Used.message()}
}

// exchange returns the two encoded calls about a subject.
func (m Mix) exchange(s subject) (*request, error) {
	reserve, err := m.reserve(s)
	if err != nil {
		return nil, err
	}
	first, err := encodeRequest(methodReserve, reserve)
	if m.Account.Lane != "" {
		first, err = encodeRequest(methodAcquire, m.acquire(reserve))
	}
	if err != nil {
		return nil, err
	}
	first.then, err = encodeRequest(methodSettle, m.Settle(reservationPlace))
	return first, err
}

// A method is one that the generator calls.
type method uint8

const (
	methodDecide method = iota // RateLimitService's
	methodReserve
	methodAcquire
	methodSettle
	methods // how many there are
)

// outcome returns what an answer says: whether the call may go on, and what its reservation is called.
func (m method) outcome(message []byte) (code overallCode, reservation string, err error) {
	switch m {
	case methodAcquire:
		const answerField = 2
		if message, err = bytesField(message, answerField); err == nil {
			return methodReserve.outcome(message)
		}
	case methodReserve:
		reservation, err = decodeReservation(message)
		if code = codeOK; reservation == "" {
			code = codeOverLimit
		}
	case methodSettle:
		err = decodeSettled(message)
		code = codeOK
	default:
		code, err = decodeOverallCode(message)
	}
	return code, reservation, err
}

// decodeReservation returns the id of the reservation in a ReserveResponse; it is empty where the call is refused.
func decodeReservation(message []byte) (string, error) {
	const (
		reservationField = 2
		idField          = 1
	)
	inner, err := bytesField(message, reservationField)
	if err != nil || inner == nil {
		return "", err
	}
	id, err := bytesField(inner, idField)
	if err == nil && len(id) != reservationLength {
		err = fmt.Errorf("the reservation is called %q: want %d characters", id, reservationLength)
	}
	return string(id), err
}

// bytesField returns the first field of that number, a message or text; nil if there is none.
func bytesField(message []byte, wanted protowire.Number) ([]byte, error) {
	for len(message) > 0 {
		number, wireType, length := protowire.ConsumeTag(message)
		if length < 0 {
			return nil, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
		}
		message = message[length:]
		if number == wanted && wireType == protowire.BytesType {
			value, length := protowire.ConsumeBytes(message)
			if length < 0 {
				return nil, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
			}
			return value, nil
		}
		length = protowire.ConsumeFieldValue(number, wireType, message)
		if length < 0 {
			return nil, fmt.Errorf("malformed answer: %w", protowire.ParseError(length))
		}
		message = message[length:]
	}
	return nil, nil
}

// decodeSettled makes sure that a SettleResponse is about a reservation that was settled. Its state is a number in field 1, as
// the code of a RateLimitResponse is.
func decodeSettled(message []byte) error {
	state, err := decodeOverallCode(message)
	if err == nil && rationv1.State(state) != rationv1.State_STATE_SETTLED {
		err = fmt.Errorf("settled with %v", rationv1.State(state))
	}
	return err
}
