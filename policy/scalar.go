package policy

import (
	"encoding/base64"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// plain scalars that stand for something other than their text, by the rules of YAML 1.1.
var plainScalars = map[string]any{
	"": nil, "~": nil, "null": nil, "Null": nil, "NULL": nil,
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true,
	"true": true, "True": true, "TRUE": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false,
	"false": false, "False": false, "FALSE": false, "off": false, "Off": false, "OFF": false,
	".nan": math.NaN(), ".NaN": math.NaN(), ".NAN": math.NaN(),
	".inf": math.Inf(1), ".Inf": math.Inf(1), ".INF": math.Inf(1),
	"+.inf": math.Inf(1), "+.Inf": math.Inf(1), "+.INF": math.Inf(1),
	"-.inf": math.Inf(-1), "-.Inf": math.Inf(-1), "-.INF": math.Inf(-1),
}

var plainFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

// scalarValue returns what a scalar stands for: nil, bool, int64, uint64 (beyond int64), float64 or
// string.
//
// The rules are those of YAML 1.1 as established policies were written against them, not those of
// the parser's own YAML 1.2: yes and on are true, 010 is eight, 1_000 is a thousand, and a date is
// text.
func scalarValue(n *yaml.Node) (any, error) {
	if n.Style&yaml.TaggedStyle == 0 {
		if n.Style&quoted != 0 {
			return n.Value, nil
		}
		return plainValue(n.Value), nil
	}
	v := plainValue(n.Value)
	ok := false
	switch tag := n.ShortTag(); tag {
	case "!!null":
		ok = v == nil
	case "!!bool":
		_, ok = v.(bool)
	case "!!int":
		switch v.(type) {
		case int64, uint64:
			ok = true
		}
	case "!!float":
		switch x := v.(type) {
		case float64:
			ok = true
		case int64:
			v, ok = float64(x), true
		}
	case "!!binary":
		data, err := base64.StdEncoding.DecodeString(n.Value)
		if err != nil {
			return n.Value, fmt.Errorf("!!binary value contains invalid base64 data")
		}
		return string(data), nil
	default:
		return n.Value, nil
	}
	if !ok {
		return v, fmt.Errorf("cannot decode `%s` as a %s", clip(n.Value), n.ShortTag())
	}
	return v, nil
}

func plainValue(s string) any {
	if v, ok := plainScalars[s]; ok {
		return v
	}
	switch c := s[0]; {
	case c == '.':
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	case c == '+', c == '-', '0' <= c && c <= '9':
		if v, ok := number(strings.ReplaceAll(s, "_", "")); ok {
			return v
		}
	}
	return s
}

func number(s string) (any, bool) {
	if i, err := strconv.ParseInt(s, 0, 64); err == nil {
		return i, true
	}
	if u, err := strconv.ParseUint(s, 0, 64); err == nil {
		return u, true
	}
	if plainFloat.MatchString(s) {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f, true
		}
	}
	return nil, false
}

// scalarText returns the text of a scalar as it is written, whatever it stands for; ok is false for
// null.
func scalarText(n *yaml.Node) (s string, ok bool) {
	v, err := scalarValue(n)
	if v == nil {
		return "", false
	}
	if s, isText := v.(string); isText && err == nil {
		return s, true // decoded, if it is !!binary
	}
	return n.Value, true
}
