package contract

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// knownKeys refuses keys of a mapping that the struct behind into has no field for.
func knownKeys(n *yaml.Node, into any) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: not a mapping", n.Line)
	}
	t := reflect.TypeOf(into).Elem()
	known := map[string]bool{}
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
			known[tag] = true
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		if key := n.Content[i]; key.Tag != "!!merge" && !known[key.Value] {
			return fmt.Errorf("line %d: unknown key %q", key.Line, key.Value)
		}
	}
	return nil
}
