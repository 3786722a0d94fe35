package loadgen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Mix says what is asked: which descriptors a request carries, and how the requests spread over the keys.
type Mix struct {
	// Domain of every request.
	Domain string
	// Descriptors of every request, each as "key=value" or "key=value,key=value", with " hits=N" behind it where its
	// hits are not 1. In a value {key} stands for the key of the request, {key%N} for the number of the key modulo N,
	// and {id} for a text of [IDLength] characters that no other request has.
	Descriptors []string
	// Then, if there are any, are the descriptors of a second call, which each caller makes when the first one was
	// answered: about the same key, and with the same {id}. So a reservation is settled. Only for closed loops.
	Then []string
	// Account, if there is one, is what is asked instead of the descriptors. Only for closed loops.
	Account *Account
	// Keys is the number of different keys, at least 1.
	Keys int
	// HotKeys is how many of the keys are hot, from 0 to Keys.
	HotKeys int
	// HotShare is the share of the requests that go to the hot keys, evenly, from 0 to 1. The other requests go
	// evenly to the other keys; if all keys are hot it must be 1.
	HotShare float64
}

// Uniform reports whether every key is as likely as any other.
func (m Mix) Uniform() bool { return m.HotKeys == 0 || m.HotKeys == m.Keys }

// DefaultDescriptors returns the first n of the three descriptors that bench/policy/plain/policy.yaml has limits for.
func DefaultDescriptors(n int) ([]string, error) {
	all := []string{"client={key}", "client={key},path=/v1/chat", "tenant={key}"}
	if n < 1 || n > len(all) {
		return nil, fmt.Errorf("%d descriptors: the benchmark's policy has 1 to %d", n, len(all))
	}
	return all[:n], nil
}

// A request is an encoded request, and what follows its answer. It never changes, so all connections may send it at the
// same time.
type request struct {
	method method
	// message has the five bytes before it that gRPC puts before every message.
	message []byte
	// ids are the places in message where the id of each sending is to be put.
	ids []int
	// reservations are the places in message where the id of the reservation is to be put that the call before has made.
	reservations []int
	// then is sent when this one has been answered; nil for nothing.
	then *request
}

// requests holds one request for each key, hot ones first.
type requests struct {
	byKey    []*request
	hotKeys  int
	hotShare float64
}

func (m Mix) encode() (*requests, error) {
	switch {
	case m.Account == nil && len(m.Descriptors) == 0:
		return nil, errors.New("a request needs at least one descriptor")
	case m.Keys < 1:
		return nil, fmt.Errorf("%d keys: at least 1 is needed", m.Keys)
	case m.HotKeys < 0 || m.HotKeys > m.Keys:
		return nil, fmt.Errorf("%d hot keys: there are %d keys", m.HotKeys, m.Keys)
	case m.HotShare < 0 || m.HotShare > 1:
		return nil, fmt.Errorf("hot share %v: must be from 0 to 1", m.HotShare)
	case m.HotKeys == 0 && m.HotShare > 0:
		return nil, fmt.Errorf("hot share %v without hot keys", m.HotShare)
	case m.HotKeys == m.Keys && m.HotShare < 1:
		return nil, fmt.Errorf("hot share %v, but all keys are hot", m.HotShare)
	}
	all := &requests{byKey: make([]*request, m.Keys), hotKeys: m.HotKeys, hotShare: m.HotShare}
	for i := range all.byKey {
		var err error
		if all.byKey[i], err = m.request(subject{key: fmt.Sprintf("k%07d", i), number: i, id: idPlace}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// request returns what is asked about a subject, encoded.
func (m Mix) request(s subject) (*request, error) {
	if m.Account != nil {
		return m.exchange(s)
	}
	first, then, err := m.messages(s)
	if err != nil {
		return nil, err
	}
	r, err := encodeRequest(methodDecide, first)
	if err == nil && then != nil {
		r.then, err = encodeRequest(methodDecide, then)
	}
	return r, err
}

// follows reports whether a second call follows each.
func (m Mix) follows() bool { return len(m.Then) > 0 || m.Account != nil }

// IDLength is the length of what {id} stands for.
const IDLength = 16

// idPlace keeps the place of an id in an encoded request. No request has this text of itself, since {id} is replaced.
const idPlace = "{id}" + "............"

func encodeRequest(method method, message proto.Message) (*request, error) {
	encoded, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, prefixLength), message)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	binary.BigEndian.PutUint32(encoded[1:], uint32(len(encoded)-prefixLength))
	return &request{
		method: method, message: encoded,
		ids: placesOf(encoded, idPlace), reservations: placesOf(encoded, reservationPlace),
	}, nil
}

// placesOf returns where the text stands in an encoded message.
func placesOf(encoded []byte, text string) (places []int) {
	for from := 0; ; {
		at := bytes.Index(encoded[from:], []byte(text))
		if at < 0 {
			return places
		}
		places = append(places, from+at)
		from += at + len(text)
	}
}

// appendTo appends the message, with id and reservation in their places.
func (r *request) appendTo(b []byte, id uint64, reservation string) []byte {
	start := len(b)
	b = append(b, r.message...)
	for _, at := range r.ids {
		const digits = "0123456789abcdef"
		place, rest := b[start+at:][:IDLength], id
		for i := range place {
			place[i] = digits[rest>>60]
			rest <<= 4
		}
	}
	for _, at := range r.reservations {
		copy(b[start+at:][:reservationLength], reservation)
	}
	return b
}

// Messages returns the two calls of one exchange; the second is nil if nothing follows the first.
func (m Mix) Messages(key, id string) (first, then *rlsv3.RateLimitRequest, err error) {
	return m.messages(subject{key: key, id: id})
}

func (m Mix) messages(s subject) (first, then *rlsv3.RateLimitRequest, err error) {
	if first, err = m.message(m.Descriptors, s); err != nil || len(m.Then) == 0 {
		return first, nil, err
	}
	then, err = m.message(m.Then, s)
	return first, then, err
}

func (m Mix) message(templates []string, s subject) (*rlsv3.RateLimitRequest, error) {
	message := &rlsv3.RateLimitRequest{Domain: m.Domain}
	for _, text := range templates {
		descriptor, err := s.descriptor(text)
		if err != nil {
			return nil, fmt.Errorf("descriptor %q: %w", text, err)
		}
		message.Descriptors = append(message.Descriptors, descriptor)
	}
	return message, nil
}

// A subject is what the placeholders of a descriptor stand for.
type subject struct {
	key    string
	number int
	id     string
}

func (s subject) descriptor(text string) (*commonv3.RateLimitDescriptor, error) {
	descriptor := &commonv3.RateLimitDescriptor{}
	entries, hits, given := strings.Cut(text, " hits=")
	if given {
		amount, err := strconv.ParseUint(hits, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("hits=%s: want a number", hits)
		}
		descriptor.HitsAddend = wrapperspb.UInt64(amount)
	}
	for entry := range strings.SplitSeq(entries, ",") {
		name, value, found := strings.Cut(entry, "=")
		if !found || name == "" {
			return nil, errors.New("want key=value or key=value,key=value")
		}
		value, err := s.fill(value)
		if err != nil {
			return nil, err
		}
		descriptor.Entries = append(descriptor.Entries, &commonv3.RateLimitDescriptor_Entry{Key: name, Value: value})
	}
	return descriptor, nil
}

// fill replaces the placeholders of a value.
func (s subject) fill(value string) (string, error) {
	value = strings.ReplaceAll(value, "{key}", s.key)
	value = strings.ReplaceAll(value, "{id}", s.id)
	before, after, found := strings.Cut(value, "{key%")
	if !found {
		return value, nil
	}
	text, after, found := strings.Cut(after, "}")
	modulus, err := strconv.Atoi(text)
	if !found || err != nil || modulus < 1 {
		return "", errors.New("want {key%N}, with a number N from 1 on")
	}
	return before + strconv.Itoa(s.number%modulus) + after, nil
}

// prefixLength is the length of what gRPC puts before a message: a byte that says whether it is compressed, and four
// with its length.
const prefixLength = 5

// A picker chooses the requests of one connection at random. The same seed gives the same choices.
type picker struct {
	*requests
	random *rand.Rand
}

func (r *requests) picker(seed uint64, connection int) *picker {
	return &picker{requests: r, random: rand.New(rand.NewPCG(seed, uint64(connection)))}
}

func (p *picker) next() *request {
	if p.hotKeys > 0 && (p.hotShare == 1 || p.random.Float64() < p.hotShare) {
		return p.byKey[p.random.IntN(p.hotKeys)]
	}
	return p.byKey[p.hotKeys+p.random.IntN(len(p.byKey)-p.hotKeys)]
}
