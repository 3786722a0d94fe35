package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

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
	r.freeEntries(n, into.value)
}

// attributes returns a mapping that is free in its keys and values as metadata is; nil if it is empty.
func (r *reader) attributes(n *yaml.Node) map[string]any {
	m := map[string]any{}
	inside := &reader{file: r.file, rep: r.rep, free: "attributes"}
	if inside.freeEntries(n, m); len(m) == 0 {
		return nil
	}
	return m
}

// parsing names the free mapping that is being read, for messages.
func (r *reader) parsing() string { return cmp.Or(r.free, "metadata") }

func (r *reader) freeEntries(n *yaml.Node, into map[string]any) {
	r.entries(n, into, func(k *yaml.Node) string {
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
			r.rep.error(r.at(k), "error parsing %s: a key is no UTF-8 text", r.parsing())
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
		r.rep.error(r.at(n), "error parsing %s: %v", r.parsing(), err)
	}
	return v
}
