package loadgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
)

// Mix says what is asked: which descriptors a request carries, and how the requests spread over the keys.
type Mix struct {
	// Domain of every request.
	Domain string
	// Descriptors of every request, each as "key=value" or "key=value,key=value"; {key} in a value stands for
	// the key of the request.
	Descriptors []string
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

// DefaultDescriptors returns the first n of the three descriptors that bench/policy/policy.yaml has limits for.
func DefaultDescriptors(n int) ([]string, error) {
	all := []string{"client={key}", "client={key},path=/v1/chat", "tenant={key}"}
	if n < 1 || n > len(all) {
		return nil, fmt.Errorf("%d descriptors: the benchmark's policy has 1 to %d", n, len(all))
	}
	return all[:n], nil
}

// A request is one encoded RateLimitRequest with the five bytes before it that gRPC puts before every message. It
// never changes, so all connections may send it at the same time.
type request []byte

// requests holds one request for each key, hot ones first.
type requests struct {
	byKey    []request
	hotKeys  int
	hotShare float64
}

func (m Mix) encode() (*requests, error) {
	switch {
	case len(m.Descriptors) == 0:
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
	all := &requests{byKey: make([]request, m.Keys), hotKeys: m.HotKeys, hotShare: m.HotShare}
	for i := range all.byKey {
		message, err := m.Message(fmt.Sprintf("k%07d", i))
		if err != nil {
			return nil, err
		}
		prefix := make([]byte, prefixLength)
		encoded, err := proto.MarshalOptions{}.MarshalAppend(prefix, message)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		binary.BigEndian.PutUint32(encoded[1:], uint32(len(encoded)-prefixLength))
		all.byKey[i] = encoded
	}
	return all, nil
}

// Message returns the request for one key.
func (m Mix) Message(key string) (*rlsv3.RateLimitRequest, error) {
	message := &rlsv3.RateLimitRequest{Domain: m.Domain}
	for _, text := range m.Descriptors {
		descriptor := &commonv3.RateLimitDescriptor{}
		for entry := range strings.SplitSeq(text, ",") {
			name, value, found := strings.Cut(entry, "=")
			if !found || name == "" {
				return nil, fmt.Errorf("descriptor %q: want key=value or key=value,key=value", text)
			}
			descriptor.Entries = append(descriptor.Entries, &commonv3.RateLimitDescriptor_Entry{
				Key: name, Value: strings.ReplaceAll(value, "{key}", key),
			})
		}
		message.Descriptors = append(message.Descriptors, descriptor)
	}
	return message, nil
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

func (p *picker) next() request {
	if p.hotKeys > 0 && (p.hotShare == 1 || p.random.Float64() < p.hotShare) {
		return p.byKey[p.random.IntN(p.hotKeys)]
	}
	return p.byKey[p.hotKeys+p.random.IntN(len(p.byKey)-p.hotKeys)]
}
