package policy

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

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
		sites, own := knownKeys[key], ownKeys[key]
		switch {
		case slices.Contains(sites, here), slices.Contains(own, here):
			written[key] = true
			set(key, v)
		case sites == nil && standsOutside(key):
			r.rep.error(r.at(k), "`%s` means nothing in %s: it belongs in %s", key, here, belongs(own))
		case sites != nil:
			r.rep.warn(r.at(k), "`%s` means nothing in %s: it belongs in %s", key, here, sites[0])
		}
	}
}

// belongs names the sites of a key: "a, b or c".
func belongs(sites []site) string {
	words := make([]string, len(sites))
	for i, s := range sites {
		words[i] = string(s)
	}
	return alternatives(words)
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
