package headers

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rationhq/ration/engine"
)

// AppendTier adds what a proxy routes an admitted request by: ration-tier, and the tier's attributes that are text,
// numbers, true or false, each under its name, ration-max-output for max_output. What no field can hold is left out, and
// an attribute whose field is there already.
func AppendTier(into []Field, d *engine.Decision) []Field {
	if d.Tier == nil {
		return into
	}
	from := len(into)
	add := func(name, value string) {
		name = "ration-" + strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		taken := slices.ContainsFunc(into[from:], func(f Field) bool { return f.Name == name })
		if !taken && isName(name) && isValue(value) {
			into = append(into, Field{name, value})
		}
	}
	add("tier", d.Tier.Name)
	for _, name := range slices.Sorted(maps.Keys(d.Tier.Attributes)) {
		switch value := d.Tier.Attributes[name].(type) {
		case string:
			add(name, value)
		case float64:
			add(name, strconv.FormatFloat(value, 'f', -1, 64))
		case bool:
			add(name, strconv.FormatBool(value))
		}
	}
	return into
}

// isName says that text can be the name of a field with any proxy: less than RFC 9110, section 5.1, allows.
func isName(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// isValue says that text can be the value of a field as it is.
func isValue(text string) bool {
	return text != "" && text == strings.TrimSpace(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}
