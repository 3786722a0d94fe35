package redis

import (
	"embed"
	"regexp"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var lua embed.FS

// What the script is made of, in this order. Running it costs as much as it defines; so what only
// strict steps need is the body of a function, which the first of them in a batch runs, and in it, likewise,
// what only leases and steps that span shards need.
var (
	limitFiles = []string{
		"limit/product", "limit/state", "decide/calendar", "limit/token_bucket", "limit/period",
		"limit/sliding_window", "limit/sliding_log", "limit/concurrency",
	}
	leaseFiles = []string{"decide/pending", "decide/holds", "decide/lease"}

	// Made when it is needed: that takes some milliseconds.
	source = sync.OnceValue(func() string {
		return inline(read("apply", "plain") +
			"local function strict()\n" + read(limitFiles...) + read("decide/bucket", "decide/step") +
			"local function leases()\n" + read(leaseFiles...) + "end\n" +
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
// it costs to define these functions.
func inline(source string) string {
	comment := regexp.MustCompile(`(?m)(^| )-- .*$|^--$`)
	constant := regexp.MustCompile(`(?m)^local ([A-Z_]+(?:, [A-Z_]+)*) = ((?:\d+|'[^']*')(?:, (?:\d+|'[^']*'))*)\n`)
	word := regexp.MustCompile(`'[^']*'|\w+`)
	source = comment.ReplaceAllString(source, "")
	values := make(map[string]string)
	source = constant.ReplaceAllStringFunc(source, func(line string) string {
		found := constant.FindStringSubmatch(line)
		given := strings.Split(found[2], ", ")
		for i, name := range strings.Split(found[1], ", ") {
			values[name] = given[i]
		}
		return ""
	})
	return word.ReplaceAllStringFunc(source, func(w string) string {
		if value, ok := values[w]; ok {
			return value
		}
		return w
	})
}
