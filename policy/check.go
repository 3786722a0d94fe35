package policy

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// check reports keys and values of a mapping that no policy file may hold. What stands below keys that
// ration adds is not looked at.
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
		if key != "metadata" && knownKeys[key] != nil {
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
	if knownKeys[key] == nil && !standsOutside(key) {
		r.unknownKey(k, key)
		return "", false
	}
	return key, true
}

func (r *reader) unknownKey(k *yaml.Node, key string) {
	if own := ownKeys[key]; own != nil {
		r.rep.error(r.at(k), "config error, unknown key '%s': it belongs in %s", key, own[0])
		return
	}
	r.rep.add(r.at(k), Problem{
		Message:    fmt.Sprintf("config error, unknown key '%s'", clip(key)),
		Suggestion: nearest(key, sortedKeys),
	})
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
