package price

import "bytes"

// longestName is the length in bytes of the longest name of a model that is looked up.
const longestName = 512

// called is a model's name as somebody wrote it, and what is left of it when ways to reach the model are taken
// off its front one after another: openrouter/anthropic/claude-x, anthropic/claude-x, claude-x.
//
// What is taken off does not make the model dearer: its maker, and gateways and clouds that sell at the maker's
// price. A host with prices of its own (groq/…) stays, and has entries of its own; a name that says nothing of a price
// is rather unknown than priced by a guess. Letters are compared in lower case.
type called struct{ name []byte }

// newCalled returns the name in room, if it is not too long.
func newCalled(model string, room *[longestName]byte) (c called, ok bool) {
	if len(model) > longestName {
		return called{}, false
	}
	c.name = room[:copy(room[:], model)]
	for i, b := range c.name {
		if 'A' <= b && b <= 'Z' {
			c.name[i] = b + ('a' - 'A')
		}
	}
	return c, true
}

// shorter takes off the outermost way to reach the model. It reports false where there is none.
func (c called) shorter() (called, bool) {
	if bytes.HasPrefix(c.name, []byte("projects/")) || bytes.HasPrefix(c.name, []byte("publishers/")) ||
		bytes.HasPrefix(c.name, []byte("arn:")) {
		// A resource of Vertex AI or Bedrock: the model is the last part of its path.
		i := bytes.LastIndexByte(c.name, '/')
		return called{c.name[i+1:]}, i >= 0
	}
	i := bytes.IndexAny(c.name, "/:.")
	if i < 0 {
		return called{}, false
	}
	way, rest := c.name[:i], c.name[i+1:]
	if c.name[i] == '.' {
		return called{rest}, isBedrock(way, rest)
	}
	return called{rest}, isWay(way, rest)
}

// isWay reports whether what stands before a slash or a colon names the maker of the model behind it, or somebody who
// sells it at the maker's price.
func isWay(way, model []byte) bool {
	switch string(way) {
	case "anthropic", "cohere", "deepseek", "google", "meta", "minimax", "mistral", "mistralai", "moonshot", "moonshotai",
		"openai", "x-ai", "xai", "z-ai", "zai", // makers, as OpenRouter, LiteLLM and others write them
		"models", "gemini", "google-gla", "google-ai-studio", // Gemini's API: models/gemini-2.5-pro
		"bedrock", "converse", "invoke", // LiteLLM's, before an id of Bedrock
		"chat", "responses", // LiteLLM's, the API to call
		"openrouter", "litellm_proxy":
		return true
	case "fireworks_ai":
		return beginsWith(model, "accounts/")
	case "vertex_ai", "vertex", "google-vertex":
		return beginsWith(model, "gemini", "claude", "google/gemini", "anthropic/claude")
	case "azure":
		return beginsWith(model, "gpt-", "o1", "o3", "o4", "openai/", "responses/")
	}
	return false
}

// isBedrock reports whether what stands before a point is a part of a Bedrock id that does not make the model behind
// it dearer: us.anthropic.claude-…. Other regions may: their ids stand for themselves.
func isBedrock(part, model []byte) bool {
	switch string(part) {
	case "us", "global":
		return true
	case "anthropic":
		return beginsWith(model, "claude")
	}
	return false
}

func beginsWith(s []byte, prefixes ...string) bool {
	for _, prefix := range prefixes {
		if len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}
