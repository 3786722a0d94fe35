package policy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// follow returns the node that an alias stands for, and any other node itself.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// pairs goes over the keys and values of a mapping as they are written, merge keys among them.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, v *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(follow(n.Content[i]), follow(n.Content[i+1])) {
				return
			}
		}
	}
}

// isMerge reports whether a key is the merge key `<<`.
func isMerge(k *yaml.Node) bool {
	return k.Kind == yaml.ScalarNode && k.Value == "<<" && k.ShortTag() == "!!merge"
}

// mergedMappings returns the mappings that a merge key with the value v brings in, in the order in
// which they take effect: of a list, the first mapping wins. ok is false where v is no such value.
func mergedMappings(v *yaml.Node) (merged []*yaml.Node, ok bool) {
	switch v.Kind {
	case yaml.MappingNode:
		return []*yaml.Node{v}, true
	case yaml.SequenceNode:
		for _, m := range slices.Backward(v.Content) {
			if m = follow(m); m.Kind != yaml.MappingNode {
				return nil, false
			}
			merged = append(merged, m)
		}
		return merged, true
	default:
		return nil, false
	}
}

func isNull(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode {
		return false
	}
	v, err := scalarValue(n)
	return v == nil && err == nil
}

// describe says what a value is, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		if n.Style&quoted != 0 {
			return strconv.Quote(clip(n.Value))
		}
		return "`" + clip(n.Value) + "`"
	}
}

// display writes a scalar or a list as Go does.
func display(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		v, _ := scalarValue(n)
		return fmt.Sprint(v)
	}
	var b strings.Builder
	b.WriteByte('[')
	for i, e := range n.Content {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.WriteString(display(follow(e))); b.Len() > clipAt {
			break
		}
	}
	b.WriteByte(']')
	return b.String()
}
