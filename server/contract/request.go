package contract

import (
	"fmt"
	"strconv"
	"strings"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Request is a ShouldRateLimit request in the notation of the cases.
type Request struct {
	Domain      string        `yaml:"domain"`
	Descriptors []*Descriptor `yaml:"descriptors"`
	HitsAddend  uint32        `yaml:"hits_addend"`
	// UnknownField adds a field that no version of the API has. It exists in the binary form only.
	UnknownField bool `yaml:"unknown_field"`
}

// Descriptor is written as its entries alone, [tenant: acme, path: /a], or as a mapping when it has more to say.
type Descriptor struct {
	Entries        Entries `yaml:"entries"`
	HitsAddend     *uint64 `yaml:"hits_addend"`
	IsNegativeHits bool    `yaml:"is_negative_hits"`
	// Limit is an override: "5 per HOUR", "5 per 10 MINUTE", or "5 per 9" for a unit by its number.
	Limit string `yaml:"limit"`
}

// Entries are a descriptor's keys and values, in order.
type Entries []Entry

// Entry is one key and its value.
type Entry struct{ Key, Value string }

// UnmarshalYAML accepts both ways to write a descriptor.
func (d *Descriptor) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode(&d.Entries)
	}
	type plain Descriptor
	return decodeStrict(n, (*plain)(d))
}

// UnmarshalYAML reads a list of mappings of one key each.
func (e *Entries) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return fmt.Errorf("line %d: entries are a list", n.Line)
	}
	for _, item := range n.Content {
		if item.Kind != yaml.MappingNode || len(item.Content) != 2 {
			return fmt.Errorf("line %d: an entry is one key and one value", item.Line)
		}
		*e = append(*e, Entry{item.Content[0].Value, item.Content[1].Value})
	}
	return nil
}

// UnmarshalYAML refuses unknown keys.
func (r *Request) UnmarshalYAML(n *yaml.Node) error {
	type plain Request
	return decodeStrict(n, (*plain)(r))
}

// Proto is the request as it goes over the wire.
func (r *Request) Proto() (*rlsv3.RateLimitRequest, error) {
	out := &rlsv3.RateLimitRequest{Domain: r.Domain, HitsAddend: r.HitsAddend}
	for _, d := range r.Descriptors {
		desc := &commonv3.RateLimitDescriptor{IsNegativeHits: d.IsNegativeHits}
		for _, e := range d.Entries {
			desc.Entries = append(desc.Entries, &commonv3.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		if d.HitsAddend != nil {
			desc.HitsAddend = wrapperspb.UInt64(*d.HitsAddend)
		}
		if d.Limit != "" {
			var err error
			if desc.Limit, err = parseOverride(d.Limit); err != nil {
				return nil, err
			}
		}
		out.Descriptors = append(out.Descriptors, desc)
	}
	if r.UnknownField {
		const number = 4711
		field := protowire.AppendTag(nil, number, protowire.BytesType)
		out.ProtoReflect().SetUnknown(protowire.AppendString(field, "from a later version"))
	}
	return out, nil
}

// parseOverride reads "5 per HOUR", "5 per 10 MINUTE" and "5 per 9". WEEK is allowed though the API's enum for
// overrides has no such name: its number is that of the answer's enum.
func parseOverride(text string) (*commonv3.RateLimitDescriptor_RateLimitOverride, error) {
	bad := func() error { return fmt.Errorf("override %q is not like \"5 per HOUR\" or \"5 per 10 MINUTE\"", text) }
	words := strings.Fields(text)
	if len(words) < 3 || len(words) > 4 || words[1] != "per" {
		return nil, bad()
	}
	requests, err := strconv.ParseUint(words[0], 10, 32)
	if err != nil {
		return nil, bad()
	}
	out := &commonv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: uint32(requests)}
	if len(words) == 4 {
		multiplier, err := strconv.ParseUint(words[2], 10, 32)
		if err != nil {
			return nil, bad()
		}
		out.UnitMultiplier = wrapperspb.UInt32(uint32(multiplier))
	}
	unit := words[len(words)-1]
	if number, known := rlsv3.RateLimitResponse_RateLimit_Unit_value[unit]; known {
		out.Unit = typev3.RateLimitUnit(number)
	} else if number, err := strconv.ParseInt(unit, 10, 32); err == nil {
		out.Unit = typev3.RateLimitUnit(number)
	} else {
		return nil, bad()
	}
	return out, nil
}

// HTTPRequest is a request to one of the HTTP ports, sent as it is written.
type HTTPRequest struct {
	Method string `yaml:"method"`
	// Port is "http" (the default) or "debug".
	Port        string `yaml:"port"`
	Path        string `yaml:"path"`
	ContentType string `yaml:"content_type"`
	Body        string `yaml:"body"`
	// Compare says what of the body counts; see the Compare constants. Empty: all of it.
	Compare Compare `yaml:"compare"`
}

// Compare says what of an HTTP body counts.
type Compare string

const (
	// CompareStatus: the body is left out.
	CompareStatus Compare = "status"
	// CompareLines: the lines count, their order does not. Lines of the runner's own policy are left out.
	CompareLines Compare = "lines"
	// ComparePaths: each line's part before the first colon counts, and more lines than recorded may be there.
	ComparePaths Compare = "paths"
)

// UnmarshalYAML refuses unknown keys.
func (h *HTTPRequest) UnmarshalYAML(n *yaml.Node) error {
	type plain HTTPRequest
	return decodeStrict(n, (*plain)(h))
}
