package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// misfit says of a value that its field cannot have which field that is, and what it can have. The decoder's own words
// tell where the value stands, mostly not in which field, and never what would do. Both are empty where it is the text that
// cannot be read, and no value.
func misfit(body []byte, of protoreflect.MessageDescriptor, why string) (field, want string) {
	if !strings.Contains(why, "invalid ") && !strings.Contains(why, "unexpected token") {
		return "", ""
	}
	var line, column int
	if _, at, ok := strings.Cut(why, "(line "); !ok {
		return "", ""
	} else if n, err := fmt.Sscanf(at, "%d:%d", &line, &column); n != 2 || err != nil {
		return "", ""
	}
	steps, ok := stepsTo(body, offsetOf(body, line, column))
	if !ok {
		return "", ""
	}
	return describe(of, steps)
}

// offsetOf returns where in the text a line and a column are, which begin at 1 and count characters.
func offsetOf(body []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(body[at:], '\n') + 1
	}
	for ; column > 1 && at < len(body); column-- {
		_, size := utf8.DecodeRune(body[at:])
		at += size
	}
	return at
}

// step leads to a value in an object, by its key, or in a list.
type step struct {
	key    string
	index  int
	inList bool
}

// stepsTo returns the way to the value that begins at an offset.
func stepsTo(body []byte, offset int) (steps []step, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	keyNext := []bool{} // for each object or list that is open: the next token is a key
	for {
		token, err := d.Token()
		if err != nil {
			return nil, false
		}
		last := len(keyNext) - 1
		delim, isDelim := token.(json.Delim)
		closes := delim == '}' || delim == ']'
		if last >= 0 && steps[last].inList && !closes {
			steps[last].index++
		}
		if key, isKey := token.(string); last >= 0 && keyNext[last] && isKey {
			steps[last].key, keyNext[last] = key, false
			continue
		}
		if int(d.InputOffset()) > offset {
			return steps, !closes
		}
		switch {
		case closes:
			steps, keyNext = steps[:last], keyNext[:last]
		case isDelim:
			steps, keyNext = append(steps, step{index: -1, inList: delim == '['}), append(keyNext, delim == '{')
			continue
		}
		if last = len(keyNext) - 1; last >= 0 {
			keyNext[last] = !steps[last].inList
		}
	}
}

// describe returns the path of a value in a message, and what it may be.
func describe(of protoreflect.MessageDescriptor, steps []step) (path, want string) {
	var field protoreflect.FieldDescriptor
	for _, s := range steps {
		switch {
		case s.inList:
			if field == nil || !field.IsList() {
				return "", ""
			}
			path += fmt.Sprintf("[%d]", s.index)
			continue
		case field != nil && field.IsMap():
			path += fmt.Sprintf("[%q]", s.key)
			field = field.MapValue()
		default:
			if field != nil {
				of = field.Message()
			}
			if of == nil {
				return "", ""
			}
			if field = of.Fields().ByJSONName(s.key); field == nil {
				field = of.Fields().ByTextName(s.key)
			}
			if field == nil {
				return "", ""
			}
			path += "." + string(field.Name())
		}
	}
	if field == nil {
		return "", ""
	}
	inList := len(steps) > 0 && steps[len(steps)-1].inList
	return strings.TrimPrefix(path, "."), wanted(field, inList)
}

// wanted says what a field may have.
func wanted(field protoreflect.FieldDescriptor, element bool) string {
	switch {
	case field.IsList() && !element:
		return "write a list, [ … ]"
	case field.IsMap():
		return "write an object, { … }"
	}
	switch field.Kind() {
	case protoreflect.MessageKind:
		switch field.Message().FullName() {
		case "google.protobuf.Duration":
			return `write seconds, as "300s"`
		case "google.protobuf.Timestamp":
			return `write an instant, as "2026-01-31T00:00:00Z"`
		}
		return "write an object, { … }"
	case protoreflect.EnumKind:
		names := []string{}
		for values, i := field.Enum().Values(), 1; i < values.Len(); i++ { // the first is that nothing is said
			names = append(names, string(values.Get(i).Name()))
		}
		return "write one of " + strings.Join(names, ", ")
	case protoreflect.StringKind:
		return `write text, as "…"`
	case protoreflect.BoolKind:
		return "write true or false"
	default:
		return "write a whole number"
	}
}
