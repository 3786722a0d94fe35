package pricelist

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rationhq/ration/price"
)

// provider is one of those that genai-prices lists.
type provider struct {
	ID     string
	Models []genaiModel
}

type genaiModel struct {
	ID     string
	Match  clause
	Prices json.RawMessage // one price, or a list of them, each with its condition
}

// clause says which names mean a model.
type clause struct {
	Equals     string
	StartsWith string `json:"starts_with"`
	EndsWith   string `json:"ends_with"`
	Contains   string
	Regex      string
	Or, And    []clause
}

// conditional is a price from some day on, or within hours of each day.
type conditional struct {
	Constraint struct {
		StartDate string `json:"start_date"`
		StartTime string `json:"start_time"`
	}
	Prices map[string]any
}

// readGenAI reads a list of providers.
func (l *list) readGenAI(data []byte) error {
	l.Format = "genai-prices"
	var providers []provider
	if err := decode(data, &providers); err != nil {
		return fmt.Errorf("this is not the list of genai-prices: %w", err)
	}
	for i := range providers {
		p := &providers[i]
		prefix := prefixOf(p.ID)
		for j := range p.Models {
			l.takeGenAI(p.ID, prefix, &p.Models[j])
		}
	}
	return nil
}

// prefixOf returns what stands before the names of a provider's models: nothing where it makes them or the names are
// its alone, so that they tell the price by themselves; otherwise the provider, as LiteLLM writes it.
func prefixOf(id string) string {
	switch id {
	case "anthropic", "aws", "cohere", "databricks", "deepseek", "fireworks", "google", "meta", "minimax", "mistral",
		"moonshotai", "openai", "perplexity", "voyageai", "x-ai", "zai":
		return ""
	case "together":
		return "together_ai/"
	}
	return id + "/"
}

// takeGenAI takes one model of a provider.
func (l *list) takeGenAI(provider, prefix string, m *genaiModel) {
	shown := prefix + m.ID
	if provider == "google" && strings.HasPrefix(m.ID, "claude") {
		l.skip(shown, "is another maker's, which lists it")
		return
	}
	names, unknown := m.Match.names()
	for i := range names {
		if provider == "aws" {
			names[i].text = inBedrock(m.ID, names[i].text)
		}
		names[i].text = prefix + names[i].text
	}
	models, tiered, err := genaiPrices(m.Prices)
	if word := mediaWord(m.ID); word != "" {
		err = fmt.Errorf("does not only write text: its name says %s", word)
	}
	if err != nil {
		l.skip(shown, "%v", err)
		for _, n := range names {
			l.Unpriced = append(l.Unpriced, n.text)
		}
		return
	}
	for _, text := range unknown {
		l.note(shown, "also stands for "+text+", which no name with stars can say")
	}
	if tiered {
		l.note(shown, basePrice)
	}
	if len(names) == 0 {
		l.skip(shown, "has no name that can be written with stars")
	}
	for _, n := range names {
		if n.not {
			l.Unpriced = append(l.Unpriced, n.text)
		} else {
			l.take(n.text, models)
		}
	}
}

// mediaWord returns the word in the name of a model that says that it does not, or not only, read and write text.
func mediaWord(id string) string {
	for _, word := range []string{
		"audio", "embed", "image", "-live", "moderation", "nano-banana", "ocr", "omni-flash", "realtime", "rerank", "sonic",
		"transcribe", "translate", "tts", "voice", "voxtral", "whisper",
	} {
		if strings.Contains(strings.ToLower(id), word) {
			return strings.Trim(word, "-")
		}
	}
	return ""
}

// genaiPrices reads the prices of a model: those that follow each other by date, each with its day. Where a price
// depends on the hour, the dearest hour counts. tiered says that there are dearer ones for long prompts.
func genaiPrices(data json.RawMessage) (models []price.Model, tiered bool, err error) {
	var steps []conditional
	if strings.HasPrefix(strings.TrimSpace(string(data)), "[") {
		err = decode(data, &steps)
	} else {
		steps = make([]conditional, 1)
		err = decode(data, &steps[0].Prices)
	}
	if err != nil {
		return nil, false, fmt.Errorf("has prices that cannot be read: %w", err)
	}
	var hours []price.Model
	for _, s := range steps {
		m, t, err := genaiPrice(s.Prices)
		if err != nil {
			return nil, false, err
		}
		tiered = tiered || t
		switch {
		case s.Constraint.StartTime != "":
			hours = append(hours, m)
			continue
		case s.Constraint.StartDate != "" && len(models) > 0:
			// What is first in the list counts before its day, too.
			if m.From, err = time.Parse(time.DateOnly, s.Constraint.StartDate); err != nil {
				return nil, false, fmt.Errorf("has a price from %q on, which is no date", s.Constraint.StartDate)
			}
		}
		models = append(models, m)
	}
	if len(models) == 0 && len(hours) > 0 {
		models = append(models, hours[0])
	}
	// Steps that differ only in what is left out here are one.
	models = slices.CompactFunc(models, func(a, b price.Model) bool {
		b.From = a.From
		return a == b
	})
	for i := range models {
		for _, h := range hours {
			models[i] = dearer(models[i], h)
		}
		if isFree(&models[i]) {
			return nil, false, errors.New(listsFree)
		}
	}
	if len(models) == 0 {
		return nil, false, errors.New(noInput)
	}
	return models, tiered, nil
}

// genaiPrice reads one set of prices.
func genaiPrice(prices map[string]any) (m price.Model, tiered bool, err error) {
	for _, key := range []string{"output_audio_mtok", "output_image_mtok", "output_video_mtok"} {
		if prices[key] != nil {
			return m, false, fmt.Errorf("does not only write text: it has a price for %s", key)
		}
	}
	base := func(key string) any {
		if tiers, ok := prices[key].(map[string]any); ok {
			tiered = true
			return tiers["base"]
		}
		return prices[key]
	}
	m, err = priced(perMillion, base("input_mtok"), base("output_mtok"), base("cache_read_mtok"), base("cache_write_mtok"))
	return m, tiered, err
}

// dearer returns a with the higher price of each class of both.
func dearer(a, b price.Model) price.Model {
	for _, m := range []*price.Model{&a, &b} {
		if !m.HasCacheRead {
			m.CacheRead = m.Input
		}
		if !m.HasCacheWrite {
			m.CacheWrite = m.Input
		}
	}
	a.HasCacheRead, a.HasCacheWrite = a.HasCacheRead || b.HasCacheRead, a.HasCacheWrite || b.HasCacheWrite
	a.Input, a.Output = max(a.Input, b.Input), max(a.Output, b.Output)
	a.CacheRead, a.CacheWrite = max(a.CacheRead, b.CacheRead), max(a.CacheWrite, b.CacheWrite)
	return a
}

// inBedrock returns the name of a model as Bedrock's API writes it, with its maker: anthropic.claude-…. The list takes
// the maker from the id where a name lacks it.
func inBedrock(id, name string) string {
	if rest, ok := strings.CutPrefix(id, "global."); ok {
		id = rest
	} else {
		id = strings.TrimPrefix(id, "regional.")
	}
	maker, _, _ := strings.Cut(id, ".")
	if strings.Contains(name, maker+".") {
		return name
	}
	return maker + "." + name
}

// pattern is a name of a model, with stars. Where it is one that the model does not have, not is set.
type pattern struct {
	text string
	not  bool
}

// notSpeech is how the list says that what speaks is another model.
const notSpeech = `^(?!.*-[tT][tT][sS](?:$|-))`

// names returns the names that the clause stands for, and what it says that stars cannot. A part of a name is looked
// for at its front: what may stand before it is a way to reach the model, which a book knows.
func (c *clause) names() (names []pattern, unknown []string) {
	switch {
	case c.Equals != "":
		names = append(names, pattern{text: c.Equals})
	case c.StartsWith != "":
		names = append(names, pattern{text: c.StartsWith + "*"})
	case c.EndsWith != "":
		names = append(names, pattern{text: strings.TrimPrefix(c.EndsWith, "/")})
	case c.Contains != "":
		names = append(names, pattern{text: c.Contains + "*"})
	case c.Regex != "":
		texts := fromRegex(c.Regex)
		if len(texts) == 0 {
			unknown = append(unknown, c.Regex)
		}
		for _, t := range texts {
			names = append(names, pattern{text: t})
		}
	case len(c.And) == 2 && c.And[0].StartsWith != "" && c.And[1].Regex == notSpeech:
		front := c.And[0].StartsWith
		names = append(names, pattern{text: front + "*"}, pattern{text: front + "*-tts*", not: true})
	case len(c.And) > 0:
		unknown = append(unknown, "several conditions at once")
	}
	for i := range c.Or {
		n, u := c.Or[i].names()
		names, unknown = append(names, n...), append(unknown, u...)
	}
	return names, unknown
}

// fromRegex returns names with stars for an expression that ends in a date or begins with letters and one digit, the
// kinds that the list has; none for others.
func fromRegex(expr string) []string {
	const letters = `^\^((?:[a-z0-9/@-]|\\\.|\[-@\])+)`
	var names []string
	if found := regexp.MustCompile(letters + `(?:\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})\$$`).FindStringSubmatch(expr); found != nil {
		names = []string{found[1] + "20*"}
	} else if found := regexp.MustCompile(letters + `\\d$`).FindStringSubmatch(expr); found != nil {
		// Versions and dates begin so; another digit is not known, rather than ten names for each model.
		for digit := range 3 {
			names = append(names, fmt.Sprintf("%s%d*", found[1], digit))
		}
	}
	var all []string
	for _, n := range names {
		n = strings.ReplaceAll(n, `\.`, ".")
		if strings.Contains(n, "[-@]") {
			all = append(all, strings.ReplaceAll(n, "[-@]", "@"))
		}
		all = append(all, strings.ReplaceAll(n, "[-@]", "-"))
	}
	return all
}
