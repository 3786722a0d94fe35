package pricelist

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// readLiteLLM reads an object with an entry for each model.
func (l *list) readLiteLLM(data []byte) error {
	l.Format = "litellm"
	var entries map[string]map[string]any
	if err := decode(data, &entries); err != nil {
		return fmt.Errorf("this is not LiteLLM's list: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		l.takeLiteLLM(name, entries[name])
	}
	return nil
}

// takeLiteLLM takes one entry.
func (l *list) takeLiteLLM(name string, entry map[string]any) {
	if name == "sample_spec" {
		l.skip(name, "explains the others")
		return
	}
	switch mode, _ := entry["mode"].(string); mode {
	case "chat", "completion", "responses":
	case "":
		l.skip(name, "has no mode, so it may not write text")
		return
	default:
		l.skip(name, "does not write text: its mode is %s", mode)
		return
	}
	m, err := priced(perToken, entry["input_cost_per_token"], entry["output_cost_per_token"],
		entry["cache_read_input_token_cost"], entry["cache_creation_input_token_cost"])
	if err != nil {
		l.skip(name, "%v", err)
		return
	}
	if isFree(&m) {
		l.skip(name, listsFree)
		return
	}
	if number, ok := entry["max_output_tokens"].(json.Number); ok {
		if n, err := number.Int64(); err == nil && n > 0 && n <= limit.MaxAmount {
			m.MaxOutput = n
		}
	}
	for key := range entry {
		if strings.HasPrefix(key, "input_cost_per_token_above_") {
			l.note(name, basePrice)
			break
		}
	}
	l.take(name, []price.Model{m})
}
