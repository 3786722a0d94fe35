package main

import "slices"

// variant says in what a bootstrap differs from the others. Its zero value meters nothing.
type variant struct {
	// File is the bootstrap's name, in the folder above.
	File string

	// Anthropic and OpenAI are the APIs that it serves: Messages; Chat Completions and Responses.
	Anthropic, OpenAI bool

	// Reserve holds what a request may use before it is made. Without it there is room or there is not, and what was
	// used is recorded when it is known.
	Reserve bool

	// Identity says who calls: keys that Envoy knows, a JWT, or keys that ration knows.
	Identity identity

	// Tiers writes the model and the output cap of the caller's tier into the request.
	Tiers bool

	// Open lets requests that cost nothing pass while nobody can count them.
	Open bool
}

type identity string

const (
	envoyKeys  identity = "keys of Envoy"
	tokens     identity = "JWT"
	rationKeys identity = "keys of ration"
)

// variants returns the bootstraps. Those after llm-reserve.yaml are that one with one thing changed.
func variants() []variant {
	return []variant{
		{File: "llm-anthropic.yaml", Anthropic: true, Identity: envoyKeys},
		{File: "llm-openai.yaml", OpenAI: true, Identity: envoyKeys},
		{File: "llm-reserve.yaml", Anthropic: true, OpenAI: true, Reserve: true, Identity: envoyKeys},
		{File: "llm-jwt.yaml", Anthropic: true, OpenAI: true, Reserve: true, Identity: tokens},
		{File: "llm-keys.yaml", Anthropic: true, OpenAI: true, Reserve: true, Identity: rationKeys},
		{File: "llm-tiers.yaml", Anthropic: true, OpenAI: true, Reserve: true, Identity: envoyKeys, Tiers: true},
		{File: "llm-open.yaml", Anthropic: true, OpenAI: true, Reserve: true, Identity: envoyKeys, Open: true},
	}
}

// Is reports whether callers are known in this way.
func (v variant) Is(how identity) bool { return v.Identity == how }

// EnvoyKeys, Tokens and RationKeys are Is, for templates.
func (v variant) EnvoyKeys() bool  { return v.Identity == envoyKeys }
func (v variant) Tokens() bool     { return v.Identity == tokens }
func (v variant) RationKeys() bool { return v.Identity == rationKeys }

// Rewrites says that requests are changed before they go to the model. Where the output is not held, and a stream tells
// its usage by itself, there is no need.
func (v variant) Rewrites() bool { return v.OpenAI || v.Reserve || v.Tiers }

// api is one that clients speak.
type api struct {
	Path    string
	Name    string // as ration.api says it
	Cluster string
	// House says that these are requests for models of one's own, behind the same path.
	House bool
}

// APIs are those that the variant serves.
func (v variant) APIs() (all []api) {
	if v.Anthropic {
		all = append(all, api{Path: "/v1/messages", Name: "anthropic", Cluster: "upstream"})
	}
	if v.OpenAI {
		if v.Tiers {
			all = append(all, api{Path: "/v1/chat/completions", Name: "openai", Cluster: "house", House: true})
		}
		all = append(all,
			api{Path: "/v1/chat/completions", Name: "openai", Cluster: "openai"},
			api{Path: "/v1/responses", Name: "openai", Cluster: "openai"})
	}
	return all
}

// provider is who serves an API.
type provider struct {
	Name, Cluster, Host string
	// Header carries the provider's key, behind Prefix; Variable of the environment has it.
	Header, Prefix, Variable string
	// Says are the headers in which it says what is left of its limits, and how long to wait.
	Says []string
	// Busy is what clients are told where the provider refuses for its limits, and Closed where it does for the key or the account.
	Busy, Closed string
}

// What providers say of their limits: to ration, and not to users.
var (
	anthropicSays = []string{
		"retry-after", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset",
		"anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset",
		"anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset",
	}
	openAISays = []string{
		"retry-after", "retry-after-ms", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
		"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
	}
)

// Says is what the variant tells ration of what its providers say, in the order of the names.
func (v variant) Says() []string {
	all := []string{"status"}
	for _, p := range v.Providers() {
		all = append(all, p.Says...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

const (
	openAIBusy   = `{"error":{"message":"The model is busy. Try again in a moment.","type":"server_error","param":null,"code":"overloaded"}}`
	openAIClosed = `{"error":{"message":"The model cannot be asked: its provider refuses.","type":"server_error","param":null,"code":"closed"}}`
)

// Providers are those behind the variant.
func (v variant) Providers() (all []provider) {
	if v.Anthropic {
		all = append(all, provider{
			Name: "Anthropic", Cluster: "upstream", Host: "api.anthropic.com", Header: "x-api-key", Variable: "ANTHROPIC_API_KEY",
			Says:   anthropicSays,
			Busy:   `{"type":"error","error":{"type":"overloaded_error","message":"The model is busy. Try again in a moment."}}`,
			Closed: `{"type":"error","error":{"type":"api_error","message":"The model cannot be asked: its provider refuses."}}`,
		})
	}
	if v.OpenAI {
		all = append(all, provider{
			Name: "OpenAI", Cluster: "openai", Host: "api.openai.com", Header: "authorization", Prefix: "Bearer ", Variable: "OPENAI_API_KEY",
			Says: openAISays, Busy: openAIBusy, Closed: openAIClosed,
		})
	}
	if v.Tiers {
		all = append(all, provider{
			Name: "A model of one's own, which speaks OpenAI's API", Cluster: "house", Header: "authorization", Prefix: "Bearer ",
			Variable: "HOUSE_API_KEY", Says: openAISays, Busy: openAIBusy, Closed: openAIClosed,
		})
	}
	return all
}
