package redis

import (
	"embed"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var lua embed.FS

// What the script is made of, in this order. Running it costs as much as it defines; so what only
// strict steps need is the body of a function, which the first of them in a batch runs.
var (
	limitFiles = []string{
		"limit/product", "limit/state", "decide/calendar", "limit/token_bucket", "limit/period",
		"limit/sliding_window", "limit/sliding_log", "limit/concurrency",
	}
	decideFiles = []string{"decide/bucket", "decide/pending", "decide/holds", "decide/step", "decide/lease", "decide/decide"}

	source = read("apply", "plain") +
		"local function strict()\n" + read(limitFiles...) + read(decideFiles...) + "end\n" +
		read("batch")

	script = redis.NewScript(source)
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
