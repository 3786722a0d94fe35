package policy

import (
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// object calls set for each field of a mapping of ration's own. Other than in the established parts of
// a file, a key that is unknown, misplaced or given twice is an error, and a key that is written goes
// before one that is merged, wherever the `<<` stands.
func (r *reader) object(name string, n *yaml.Node, here site, set func(key string, v *yaml.Node)) {
	r.table(name, n, func(k *yaml.Node, key string, v *yaml.Node) {
		sites := ownKeys[key]
		for _, s := range sites {
			if s == here {
				set(key, v)
				return
			}
		}
		switch {
		case sites != nil:
			r.rep.error(r.at(k), "`%s` means nothing in %s: it belongs in %s", key, here, belongs(sites))
		case knownKeys[key] != nil && nearKeys[key] == "":
			r.rep.error(r.at(k), "`%s` means nothing in %s: it belongs in %s", key, here, belongs(knownKeys[key]))
		default:
			p := Problem{Message: "unknown key `" + clip(key) + "` in " + string(here), Suggestion: nearKeys[key]}
			if p.Suggestion == "" {
				p.Suggestion = nearest(key, keysOf(here))
			}
			r.rep.add(r.at(k), p)
		}
	})
}

// table calls each for every key of a mapping whose keys are text, once for a key; those that are
// merged come before those that are written.
func (r *reader) table(name string, n *yaml.Node, each func(k *yaml.Node, key string, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.rep.error(r.at(n), "%s must be a mapping, not %s", name, describe(n))
		return
	}
	written := map[string]bool{}
	for k := range pairs(n) {
		if key, ok := r.ownKey(k); ok {
			if written[key] {
				r.rep.error(r.at(k), "`%s` is given twice", clip(key))
			}
			written[key] = true
		}
	}
	r.merged(n, written, each)
	done := map[string]bool{}
	for k, v := range pairs(n) {
		if key, ok := r.ownKey(k); ok && !done[key] {
			done[key] = true
			each(k, key, v)
		}
	}
}

// merged calls each for the keys that merge keys bring into n, unless they are written there: the first
// of several mappings goes before the others.
func (r *reader) merged(n *yaml.Node, written map[string]bool, each func(k *yaml.Node, key string, v *yaml.Node)) {
	type pair struct{ k, v *yaml.Node }
	found, order := map[string]pair{}, []string{}
	var collect func(n *yaml.Node, top bool)
	collect = func(n *yaml.Node, top bool) {
		for k, v := range pairs(n) {
			if !isMerge(k) {
				continue
			}
			mappings, ok := mergedMappings(v)
			if !ok {
				r.rep.error(r.at(v), "`<<` merges a mapping or a list of mappings, not %s", describe(v))
			}
			for _, m := range mappings { // the last one counts
				collect(m, false)
			}
		}
		if top {
			return
		}
		for k, v := range pairs(n) {
			if key, ok := r.ownKey(k); ok && !written[key] {
				if _, known := found[key]; !known {
					order = append(order, key)
				}
				found[key] = pair{k, v}
			}
		}
	}
	collect(n, true)
	for _, key := range order {
		each(found[key].k, key, found[key].v)
	}
}

// ownKey returns the text of a key; ok is false for a merge key, and for one that was reported.
func (r *reader) ownKey(k *yaml.Node) (key string, ok bool) {
	if isMerge(k) {
		return "", false
	}
	if k.Kind != yaml.ScalarNode {
		r.rep.error(r.at(k), "a key must be text, not %s", describe(k))
		return "", false
	}
	if key, ok = scalarText(k); !ok {
		key = k.Value // `~:` or `null:`
	}
	if !utf8.ValidString(key) {
		r.rep.error(r.at(k), "a key is not valid UTF-8")
		return "", false
	}
	return key, true
}

// list calls each for the elements of a list, which are mappings; null is an empty list.
func (r *reader) list(name string, n *yaml.Node, each func(n *yaml.Node)) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.SequenceNode:
		r.rep.error(r.at(n), "`%s` must be a list, not %s", name, describe(n))
		return
	}
	for _, e := range n.Content {
		if e = follow(e); e.Kind != yaml.MappingNode {
			r.rep.error(r.at(e), "`%s` is a list of mappings, not of %s", name, describe(e))
			continue
		}
		each(e)
	}
}

// ownText reads text that is not empty; what is written as a number or a date is text too.
func (r *reader) ownText(name string, n *yaml.Node, into *field[string]) {
	if s, ok := r.written(name, n); ok {
		*into = field[string]{s, r.at(n), true}
	}
}

// ownBool reads true or false.
func (r *reader) ownBool(name string, n *yaml.Node, into *field[bool]) {
	if b, ok := r.scalar(n).(bool); ok {
		*into = field[bool]{b, r.at(n), true}
		return
	}
	r.rep.error(r.at(n), "`%s` must be true or false, not %s", name, describe(n))
}

// written returns the text of a scalar that is there.
func (r *reader) written(name string, n *yaml.Node) (s string, ok bool) {
	if n.Kind != yaml.ScalarNode {
		r.rep.error(r.at(n), "`%s` must be text, not %s", name, describe(n))
		return "", false
	}
	s, ok = scalarText(n)
	switch {
	case !ok || s == "":
		r.rep.error(r.at(n), "`%s` is empty", name)
		return "", false
	case !utf8.ValidString(s):
		r.rep.error(r.at(n), "`%s` is not valid UTF-8", name)
		return "", false
	}
	return s, true
}

// read reads a scalar by a parser of its own.
func read[T any](r *reader, name string, n *yaml.Node, into *field[T], parse func(string) (T, error)) {
	s, ok := r.written(name, n)
	if !ok {
		return
	}
	v, err := parse(s)
	if err != nil {
		r.rep.error(r.at(n), "`%s`: %v", name, err)
		return
	}
	*into = field[T]{v, r.at(n), true}
}
