package contract

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keyOrder is the order in which an answer is written; other keys follow by name.
var keyOrder = []string{
	"error", "process", "overall_code", "statuses", "response_headers_to_add", "request_headers_to_add", "raw_body",
	"dynamic_metadata", "domain", "code", "message", "current_limit", "limit_remaining", "duration_until_reset",
	"status", "content_type", "body", "overallCode", "currentLimit", "limitRemaining", "durationUntilReset",
}

// node builds the YAML of a tree; flow style below the given depth of blocks.
func node(v any, blocks int) (*yaml.Node, error) {
	style := yaml.Style(0)
	if blocks <= 0 {
		style = yaml.FlowStyle
	}
	switch v := v.(type) {
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Style: style}
		for _, k := range orderedKeys(v) {
			child, err := node(v[k], blocks-1)
			if err != nil {
				return nil, err
			}
			key := &yaml.Node{}
			if err := key.Encode(k); err != nil {
				return nil, err
			}
			n.Content = append(n.Content, key, child)
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: style}
		for _, item := range v {
			child, err := node(item, blocks-1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		return n, nil
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			text = strconv.FormatInt(int64(v), 10)
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Value: text}, nil
	}
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		return nil, err
	}
	if n.Style == yaml.LiteralStyle {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n, nil
}

func orderedKeys(m map[string]any) []string {
	rank := func(k string) int {
		if i := slices.Index(keyOrder, k); i >= 0 {
			return i
		}
		return len(keyOrder)
	}
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// flow writes a tree on one line.
func flow(v any) (string, error) {
	n, err := node(v, 0)
	if err != nil {
		return "", err
	}
	text, err := yaml.Marshal(n)
	return strings.TrimSuffix(string(text), "\n"), err
}

// maxWidth is how long a line of a case file gets before an answer is spread over several.
const maxWidth = 118

// notation writes what follows the key of an answer in a case file: everything on one line as far as it fits, and each
// status on a line of its own.
func notation(key string, answer any, indent int) (string, error) {
	var out strings.Builder
	err := writeAfterKey(&out, key, answer, indent)
	return out.String(), err
}

func writeAfterKey(out *strings.Builder, key string, v any, indent int) error {
	one, err := flow(v)
	if err != nil {
		return err
	}
	m, isMap := v.(map[string]any)
	items, isList := v.([]any)
	_, isAnswer := m["statuses"]
	fits := indent+len(key)+len(": ")+len(one) <= maxWidth
	switch {
	case isMap && len(m) > 0 && (isAnswer || !fits):
		out.WriteString("\n")
		for _, k := range orderedKeys(m) {
			text, err := flow(k)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%*s%s:", indent+2, "", text)
			if err := writeAfterKey(out, text, m[k], indent+2); err != nil {
				return err
			}
		}
	case isList && len(items) > 0 && (key == "statuses" || key == "response_headers_to_add" || !fits):
		out.WriteString("\n")
		for _, item := range items {
			text, err := flow(item)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%*s- %s\n", indent, "", text)
		}
	default:
		out.WriteString(" " + one + "\n")
	}
	return nil
}
