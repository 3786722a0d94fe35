package main

import (
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rationhq/ration/store/redis"
)

const description = `Rate limit decisions for Envoy: may this caller do this now?`

// Help implements kong.HelpProvider.
func (serveCmd) Help() string {
	return strings.TrimSpace(`
Every flag can be set in the environment too: --grpc-addr is RATION_GRPC_ADDR. The flag wins.

Coming from envoyproxy/ratelimit? Its variables are understood (REDIS_URL, RUNTIME_ROOT, PORT, GRPC_PORT, LOG_LEVEL
and more), and so are its policy files. RATION_… wins over them; those without effect are named in one warning at
start. docs/configuration.md lists them all.

Signals: SIGHUP reads the policies again, and the tokens (changed files are noticed without it). SIGTERM and SIGINT end the process
without losing a call: health says NOT_SERVING, calls are answered for --drain-delay, then those under way have
--stop-timeout to end. Another one later ends it at once.

Exit codes: 0 ended as told, 1 failed (a policy, an address, calls cut off), 2 a flag or variable that cannot work.

Examples:

  ration serve --banner                                          an example policy, counters in memory

  ration serve --policy limits.yaml                              your policy

  ration serve --policy limits.d/ --store redis://redis:6379     several replicas share counters

  RATION_STORE=redis://user:secret@redis:6379 ration serve ...   keeps the password out of ps
`)
}

// Help implements kong.HelpProvider.
func (checkCmd) Help() string {
	return strings.TrimSpace(`
Prints each problem as file:line:column: message, with a suggestion where one is near, and exits with 1 if there are
errors. Otherwise prints in words what each rule means, or, asked about one request, which limits apply to it and in
which counters it counts. There \, is a comma in a value; ration.model names a model, so that the limits of its upstream
apply (among attributes, model does too), ration.tier a tier, and ration.lane the lane that the request waits in.

Examples:

  ration check limits.yaml

  ration check limits.yaml --attributes user=alice,model=claude-opus-4-1

  ration check limits.yaml --descriptor user=alice,ration.model=claude-opus-4-1
`)
}

// Help implements kong.HelpProvider.
func (pricesShowCmd) Help() string {
	return strings.TrimSpace(`
The book has its date and source in its head; what a policy says wins over it. A name is looked up as requests' names
are: exactly, then by the patterns of the book, then without what stands before it and does not change the price, as
openrouter/ and anthropic/ in openrouter/anthropic/claude-sonnet-4-5.

Examples:

  ration prices

  ration prices us.anthropic.claude-sonnet-4-5-20250929-v1:0
`)
}

// Help implements kong.HelpProvider.
func (pricesImportCmd) Help() string {
	return strings.TrimSpace(`
Prints a section for a policy. What it leaves out, and why, it prints to the standard error: models that do not only
write text, and those without prices per token. A price of the list that is finer than a billionth of a dollar per
million tokens is rounded up.

Examples:

  ration prices import model_prices_and_context_window.json 'groq/*' >groq.yaml

  ration prices import data.json
`)
}

// Help implements kong.HelpProvider.
func (tokenNewCmd) Help() string {
	return strings.TrimSpace(`
Prints the token to the standard output, once: it is kept nowhere. Prints its entry, which holds the token's hash alone,
to the standard error: put it under tokens: in the file of ration serve --access.

Examples:

  ration token new billing-app --domain llm >billing-app.token

  ration token new ops --may admin --expires 2027-01-01
`)
}

// Groups of flags in the help of serve.
const (
	groupPolicy    = "policy"
	groupStore     = "store"
	groupListen    = "listen"
	groupTLS       = "tls"
	groupAnswers   = "answers"
	groupWebhook   = "webhook"
	groupLifecycle = "lifecycle"
	groupLog       = "log"
)

func groups() []kong.Group {
	return []kong.Group{
		{Key: groupPolicy, Title: "Policies: what is limited, and how"},
		{Key: groupStore, Title: "Store: where counters are kept"},
		{Key: groupListen, Title: "Addresses: host:port, :port, unix:/path, or empty for none"},
		{Key: groupTLS, Title: "TLS: files that change are read again"},
		{Key: groupAnswers, Title: "Answers"},
		{Key: groupWebhook, Title: "Webhook: who is told of thresholds"},
		{Key: groupLifecycle, Title: "Connections and the end"},
		{Key: groupLog, Title: "Output"},
	}
}

func helpVars() kong.Vars { return kong.Vars{"redis_forms": redis.Forms} }

// formatHelp leaves the names of variables out: one rule makes them all.
func formatHelp(value *kong.Value) string { return value.Help }
