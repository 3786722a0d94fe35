package policy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A policy file as it is written, before its rules are judged.
type (
	document struct {
		domain      field[string]
		descriptors []*descriptor
	}

	descriptor struct {
		at            place
		key, value    field[string]
		rateLimit     *rateLimit
		descriptors   []*descriptor
		shadow, quota field[bool]
		share         field[bool]
		metadata      field[map[string]any]
	}

	rateLimit struct {
		at              place
		requestsPerUnit field[uint32]
		unit, name      field[string]
		unlimited       field[bool]
		replaces        []replaced
	}

	replaced struct {
		at   place
		name field[string]
	}

	// field is the value of a field and where it stands. The zero field is absent, or null.
	field[T any] struct {
		value T
		at    place
		given bool
	}
)

// site is a kind of mapping in a policy file.
type site string

const (
	inRoot       site = "the top of the file"
	inDescriptor site = "a descriptor"
	inRateLimit  site = "rate_limit"
	inReplaces   site = "replaces"
)

// knownKeys are the keys of a policy file and where they mean something. detailed_metric and
// value_to_metric shape the names of statsd metrics, which is why nothing reads them here.
var knownKeys = map[string][]site{
	"domain":            {inRoot},
	"descriptors":       {inRoot, inDescriptor},
	"key":               {inDescriptor},
	"value":             {inDescriptor},
	"rate_limit":        {inDescriptor},
	"shadow_mode":       {inDescriptor},
	"quota_mode":        {inDescriptor},
	"metadata":          {inDescriptor},
	"detailed_metric":   {inDescriptor},
	"value_to_metric":   {inDescriptor},
	"share_threshold":   {inDescriptor},
	"unit":              {inRateLimit},
	"requests_per_unit": {inRateLimit},
	"unlimited":         {inRateLimit},
	"name":              {inRateLimit, inReplaces},
	"replaces":          {inRateLimit},
}

var sortedKeys = slices.Sorted(maps.Keys(knownKeys))

// reader turns the YAML of one file into a document.
//
// It goes over the file twice. check judges keys and kinds of values as envoyproxy/ratelimit does,
// anywhere in the file and wherever a key stands; the rest takes the values and judges their types
// and places. Fields take effect in the order in which they are written, merge keys among them, and
// a rate_limit that is given twice is filled in twice: so do established files mean what they meant.
type reader struct {
	file string
	rep  *report
}

func (r *reader) at(n *yaml.Node) place { return place{r.file, n.Line, n.Column} }

// document reads a file; root is nil for an empty one. It returns nil where the file is no policy.
func (r *reader) document(root *yaml.Node) *document {
	doc := &document{}
	if root == nil {
		return doc
	}
	if root.Kind != yaml.MappingNode {
		r.typeError("a policy file", "a mapping with domain and descriptors", root)
		return nil
	}
	r.check(root)
	r.fields(root, inRoot, func(key string, v *yaml.Node) {
		switch key {
		case "domain":
			r.text(key, v, &doc.domain)
		case "descriptors":
			doc.descriptors = r.descriptors(v)
		}
	})
	return doc
}

func (r *reader) descriptors(list *yaml.Node) []*descriptor {
	var out []*descriptor
	r.mappings("descriptors", list, func(n *yaml.Node) {
		d := &descriptor{at: r.at(n)}
		out = append(out, d)
		r.fields(n, inDescriptor, func(key string, v *yaml.Node) {
			switch key {
			case "key":
				r.text(key, v, &d.key)
			case "value":
				r.text(key, v, &d.value)
			case "rate_limit":
				r.rateLimit(v, &d.rateLimit)
			case "descriptors":
				d.descriptors = r.descriptors(v)
			case "shadow_mode":
				r.bool(key, v, &d.shadow)
			case "quota_mode":
				r.bool(key, v, &d.quota)
			case "share_threshold":
				r.bool(key, v, &d.share)
			case "metadata":
				r.metadata(v, &d.metadata)
			case "detailed_metric", "value_to_metric":
				r.bool(key, v, new(field[bool]))
			}
		})
	})
	return out
}

func (r *reader) rateLimit(n *yaml.Node, into **rateLimit) {
	switch {
	case isNull(n):
		*into = nil
		return
	case n.Kind != yaml.MappingNode:
		r.wrongType("rate_limit", "a mapping", n)
		return
	case *into == nil:
		*into = &rateLimit{at: r.at(n)}
	}
	l := *into
	r.fields(n, inRateLimit, func(key string, v *yaml.Node) {
		switch key {
		case "requests_per_unit":
			r.uint32(key, v, &l.requestsPerUnit)
		case "unit":
			r.text(key, v, &l.unit)
		case "unlimited":
			r.bool(key, v, &l.unlimited)
		case "name":
			r.text(key, v, &l.name)
		case "replaces":
			l.replaces = nil
			r.mappings(key, v, func(n *yaml.Node) {
				rep := replaced{at: r.at(n)}
				r.fields(n, inReplaces, func(key string, v *yaml.Node) { r.text(key, v, &rep.name) })
				l.replaces = append(l.replaces, rep)
			})
		}
	})
}

// check reports keys and values of a mapping that no policy file may hold.
func (r *reader) check(n *yaml.Node) {
	seen := map[string]bool{}
	for k, v := range pairs(n) {
		if isMerge(k) {
			r.checkMerge(v)
			continue
		}
		key, ok := r.checkKey(k)
		if !ok {
			continue
		}
		if seen[key] {
			r.rep.warn(r.at(k), "duplicate key '%s': the last one counts", key)
		}
		seen[key] = true
		if key != "metadata" {
			r.checkValue(v)
		}
	}
}

func (r *reader) checkKey(k *yaml.Node) (key string, ok bool) {
	if k.Kind != yaml.ScalarNode {
		r.rep.error(r.at(k), "error loading config file: yaml: a key must be text, not %s", describe(k))
		return "", false
	}
	v, err := scalarValue(k)
	if err != nil {
		r.rep.error(r.at(k), "error loading config file: yaml: %v", err)
		return "", false
	}
	key, ok = v.(string)
	if !ok {
		r.rep.error(r.at(k), "config error, key is not of type string: %v", v)
		return "", false
	}
	if knownKeys[key] == nil {
		r.rep.add(r.at(k), Problem{
			Message:    fmt.Sprintf("config error, unknown key '%s'", clip(key)),
			Suggestion: nearest(key, sortedKeys),
		})
		return "", false
	}
	return key, true
}

func (r *reader) checkMerge(v *yaml.Node) {
	merged, ok := mergedMappings(v)
	if !ok {
		r.rep.error(r.at(v),
			"error loading config file: yaml: map merge requires map or sequence of maps as the value")
	}
	for _, m := range merged {
		r.check(m)
	}
}

func (r *reader) checkValue(v *yaml.Node) {
	switch v.Kind {
	case yaml.MappingNode:
		r.check(v)
	case yaml.SequenceNode:
		for _, e := range v.Content {
			if e = follow(e); e.Kind == yaml.MappingNode {
				r.check(e)
				continue
			}
			r.rep.error(r.at(e), "config error, yaml file contains list of type other than map: %s",
				clip(display(e)))
		}
	default:
		x, err := scalarValue(v)
		if err != nil {
			r.rep.error(r.at(v), "error loading config file: yaml: %v", err)
		}
		if failsCheck(x) {
			r.rep.error(r.at(v), "error checking config: `%s` is neither text nor a whole number of 64 bits: "+
				"write it in quotes if it is text", clip(v.Value))
		}
	}
}

// failsCheck reports whether a scalar is of a type that check refuses wherever it stands.
func failsCheck(v any) bool {
	switch v.(type) {
	case float64, uint64:
		return true
	}
	return false
}

// fields calls set for each field that means something here, in the order in which they take
// effect.
func (r *reader) fields(n *yaml.Node, here site, set func(key string, v *yaml.Node)) {
	written := map[string]bool{}
	for k, v := range pairs(n) {
		if isMerge(k) {
			merged, _ := mergedMappings(v)
			for _, m := range merged {
				r.fields(m, here, func(key string, v *yaml.Node) {
					if written[key] {
						r.rep.warn(r.at(k), "`<<` overwrites the `%s` that stands before it: write `<<` first", key)
					}
					set(key, v)
				})
			}
			continue
		}
		key, _ := scalarText(k)
		sites := knownKeys[key]
		switch {
		case slices.Contains(sites, here):
			written[key] = true
			set(key, v)
		case sites != nil:
			r.rep.warn(r.at(k), "`%s` means nothing in %s: it belongs in %s", key, here, sites[0])
		}
	}
}

// mappings calls each for every mapping of a list; check has reported what is none.
func (r *reader) mappings(name string, list *yaml.Node, each func(*yaml.Node)) {
	if list.Kind != yaml.SequenceNode {
		if !isNull(list) {
			r.wrongType(name, "a list", list)
		}
		return
	}
	for _, n := range list.Content {
		if n = follow(n); n.Kind == yaml.MappingNode {
			each(n)
		}
	}
}

func (r *reader) text(name string, n *yaml.Node, into *field[string]) {
	if n.Kind != yaml.ScalarNode {
		r.wrongType(name, "text", n)
		return
	}
	s, ok := scalarText(n)
	if ok && !utf8.ValidString(s) {
		r.rep.error(r.at(n), "%s is not valid UTF-8", word(name))
		return
	}
	if ok {
		*into = field[string]{s, r.at(n), true}
	} else {
		*into = field[string]{}
	}
}

func (r *reader) bool(name string, n *yaml.Node, into *field[bool]) {
	switch v := r.scalar(n).(type) {
	case bool:
		*into = field[bool]{v, r.at(n), true}
	case nil:
		*into = field[bool]{}
	default:
		r.wrongType(name, "true or false", n)
	}
}

func (r *reader) uint32(name string, n *yaml.Node, into *field[uint32]) {
	switch v := r.scalar(n).(type) {
	case int64:
		if 0 <= v && v <= math.MaxUint32 {
			*into = field[uint32]{uint32(v), r.at(n), true}
			return
		}
	case nil:
		*into = field[uint32]{}
		return
	}
	r.wrongType(name, fmt.Sprintf("a whole number in 0…%d", uint32(math.MaxUint32)), n)
}

// scalar returns what a scalar stands for, and n itself, which is of no wanted type, for anything
// else.
func (r *reader) scalar(n *yaml.Node) any {
	if n.Kind != yaml.ScalarNode {
		return n
	}
	v, err := scalarValue(n)
	if err != nil {
		return n
	}
	return v
}

// wrongType reports a value of the wrong type, unless check has.
func (r *reader) wrongType(name, want string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		if v, err := scalarValue(n); err != nil || failsCheck(v) {
			return
		}
	}
	r.typeError(name, want, n)
}

func (r *reader) typeError(name, want string, n *yaml.Node) {
	r.rep.error(r.at(n), "error loading config file: yaml: %s must be %s, not %s", name, want, describe(n))
}

// metadata adds the entries of a metadata mapping, which are free in their keys and values as long
// as JSON can hold them.
func (r *reader) metadata(n *yaml.Node, into *field[map[string]any]) {
	switch {
	case isNull(n):
		*into = field[map[string]any]{}
		return
	case n.Kind != yaml.MappingNode:
		r.typeError("metadata", "a mapping", n)
		return
	}
	if into.value == nil {
		*into = field[map[string]any]{map[string]any{}, r.at(n), true}
	}
	r.entries(n, into.value, func(k *yaml.Node) string {
		s, _ := scalarText(k)
		return s
	})
}

func (r *reader) entries(n *yaml.Node, into map[string]any, name func(*yaml.Node) string) {
	for k, v := range pairs(n) {
		if isMerge(k) {
			merged, ok := mergedMappings(v)
			if !ok {
				r.checkMerge(v)
			}
			for _, m := range merged {
				r.entries(m, into, name)
			}
			continue
		}
		if k.Kind != yaml.ScalarNode {
			r.rep.error(r.at(k), "error loading config file: yaml: a key must be text, not %s", describe(k))
			continue
		}
		key := name(k)
		if !utf8.ValidString(key) {
			r.rep.error(r.at(k), "error parsing metadata: a key is no UTF-8 text")
		}
		into[key] = r.jsonValue(v)
	}
}

// jsonValue returns what n stands for as encoding/json would decode it.
func (r *reader) jsonValue(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		r.entries(n, m, func(k *yaml.Node) string {
			v, _ := scalarValue(k)
			return fmt.Sprint(v)
		})
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			list[i] = r.jsonValue(follow(e))
		}
		return list
	default:
		return r.jsonScalar(n)
	}
}

func (r *reader) jsonScalar(n *yaml.Node) any {
	v, err := scalarValue(n)
	if err != nil {
		r.rep.error(r.at(n), "error loading config file: yaml: %v", err)
		return nil
	}
	switch x := v.(type) {
	case int64:
		return float64(x)
	case uint64:
		return float64(x)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			err = fmt.Errorf("no number of JSON is `%s`", clip(n.Value))
		}
	case string:
		if !utf8.ValidString(x) {
			err = errors.New("a value is no UTF-8 text")
		}
	}
	if err != nil {
		r.rep.error(r.at(n), "error parsing metadata: %v", err)
	}
	return v
}
