package redis

import (
	"embed"
	"strings"
	"sync"
	"unicode"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var lua embed.FS

// What the script is made of, in this order. Running it costs as much as it defines; so what only
// strict steps need is the body of a function, which the first of them in a batch runs, and in it, likewise,
// what only leases, steps that span shards and depletions need, or only rows, or only thresholds.
var (
	limitFiles = []string{
		"limit/product", "limit/state", "decide/calendar", "limit/token_bucket", "limit/period",
		"limit/sliding_window", "limit/sliding_log", "limit/concurrency",
	}
	leaseFiles = []string{"limit/missing", "decide/pending", "decide/holds", "decide/lease"}
	usageFiles = []string{"decide/rows"}
	eventFiles = []string{"decide/events"}

	// Made when it is needed.
	source = sync.OnceValue(func() string {
		return inline(read("apply", "plain") +
			"local function strict()\n" + read(limitFiles...) + read("decide/bucket", "decide/step") +
			"local function leases()\n" + read(leaseFiles...) + "end\n" +
			"local function usage()\n" + read(usageFiles...) + "end\n" +
			"local function events()\n" + read(eventFiles...) + "end\n" +
			read("decide/decide") + "end\n" +
			read("batch"))
	})
	script = sync.OnceValue(func() *redis.Script { return redis.NewScript(source()) })
)

// read joins files of the script.
func read(names ...string) string {
	var all strings.Builder
	for _, name := range names {
		text, err := lua.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err) // it is part of the program
		}
		all.Write(text)
	}
	return all.String()
}

// inline puts the values of constants in their places: numbers and strings that are given to a name in capitals. To
// Lua they are variables, each of which every function that uses it holds on to: that alone would make half of what
// it costs to define these functions. Comments stay behind.
func inline(source string) string {
	values := make(map[string]string)
	var all strings.Builder
	for line := range strings.Lines(source) {
		code, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " -- ")
		if strings.HasPrefix(strings.TrimSpace(code), "--") || define(values, code) {
			continue
		}
		replaceWords(&all, code, values)
		all.WriteByte('\n')
	}
	return all.String()
}

// define notes the constants that a line defines, and reports whether that is what it does.
func define(values map[string]string, line string) bool {
	definition, isLocal := strings.CutPrefix(line, "local ")
	left, right, isGiven := strings.Cut(definition, " = ")
	names, given := strings.Split(left, ", "), strings.Split(right, ", ")
	if !isLocal || !isGiven || len(names) != len(given) {
		return false
	}
	for i, name := range names {
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || !isLiteral(given[i]) {
			return false
		}
	}
	for i, name := range names {
		values[name] = given[i]
	}
	return true
}

func isLiteral(s string) bool {
	return strings.Trim(s, "0123456789") == "" || len(s) > 1 && s[0] == '\'' && strings.IndexByte(s[1:], '\'') == len(s)-2
}

// replaceWords appends code with words replaced that have a value, but not in strings.
func replaceWords(all *strings.Builder, code string, values map[string]string) {
	isWord := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	for i, part := range strings.Split(code, "'") {
		if i > 0 {
			all.WriteByte('\'')
		}
		if i%2 == 1 {
			all.WriteString(part)
			continue
		}
		for part != "" {
			start := strings.IndexFunc(part, isWord)
			if start < 0 {
				start = len(part)
			}
			word := part[start:]
			if end := strings.IndexFunc(word, func(r rune) bool { return !isWord(r) }); end >= 0 {
				word = word[:end]
			}
			all.WriteString(part[:start])
			if value, ok := values[word]; ok {
				all.WriteString(value)
			} else {
				all.WriteString(word)
			}
			part = part[start+len(word):]
		}
	}
}
