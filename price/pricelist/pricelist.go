// Package pricelist reads the lists of prices that others publish into entries of a price book: the JSON of LiteLLM
// (model_prices_and_context_window.json, dollars per token) and of genai-prices (data.json, dollars per million
// tokens).
//
// It takes models that write text and are paid by the token, and names what it leaves out. It must not know policies
// or where a list comes from. Figures go from decimal to integer without a floating point number between them.
//
// Read Read first, then the file of the format in question.
package pricelist

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rationhq/ration/price"
)

// List is what a published list says.
type List struct {
	// Format is "litellm" or "genai-prices".
	Format string
	// Models are the entries by name and date.
	Models []price.Model
	// Unpriced are names, with stars, that the list has and Models does not: of models that do not only write text,
	// for instance. A pattern among Models may stand for them by mistake.
	Unpriced []string
	// Notes say by name what was left out and what was simplified.
	Notes []Note
}

// Note says something of one name of a list.
type Note struct {
	Name string
	// Skipped says that the name is not among the models.
	Skipped bool
	// Text says why, or what else is to be known: "has no price of output tokens".
	Text string
}

// String returns the note as a line: "skipped tts-1: has no price of output tokens".
func (n Note) String() string {
	if n.Skipped {
		return fmt.Sprintf("skipped %s: %s", n.Name, n.Text)
	}
	return fmt.Sprintf("%s: %s", n.Name, n.Text)
}

// Read reads a list of either format.
func Read(data []byte) (*List, error) {
	data = bytes.TrimSpace(data)
	var (
		l   list
		err error
	)
	switch {
	case len(data) > 0 && data[0] == '[':
		err = l.readGenAI(data)
	case len(data) > 0 && data[0] == '{':
		err = l.readLiteLLM(data)
	default:
		return nil, errors.New("this is no JSON: want LiteLLM's model_prices_and_context_window.json or the data.json of genai-prices")
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(l.Models, func(a, b price.Model) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.From.Compare(b.From))
	})
	slices.SortStableFunc(l.Notes, func(a, b Note) int { return strings.Compare(a.Name, b.Name) })
	return &l.List, nil
}

// list is a list that is being read.
type list struct {
	List

	taken map[string][]price.Model // by the name in lower case
}

// take adds what the list says of one name, unless it did already.
func (l *list) take(name string, models []price.Model) {
	if l.taken == nil {
		l.taken = map[string][]price.Model{}
	}
	key := strings.ToLower(name)
	if before, ok := l.taken[key]; ok {
		if !slices.Equal(before, models) {
			l.skip(name, "is in the list a second time, with other prices: the first ones count")
		}
		return
	}
	l.taken[key] = models
	for _, m := range models {
		m.Name = name
		l.Models = append(l.Models, m)
	}
}

func (l *list) skip(name, format string, args ...any) {
	l.Notes = append(l.Notes, Note{Name: name, Skipped: true, Text: fmt.Sprintf(format, args...)})
}

func (l *list) note(name, text string) { l.Notes = append(l.Notes, Note{Name: name, Text: text}) }

// isFree reports whether all that the model costs is 0. Lists say so of models whose price they do not know, too; an
// entry of that kind would take them out of every budget.
func isFree(m *price.Model) bool { return m.Rates == price.Rates{} }

// Words for what is left out or simplified.
const (
	noInput   = "has no price of input tokens"
	noOutput  = "has no price of output tokens"
	listsFree = "is listed as free, as those are whose price is not known: where it is free, write 0 in the policy"
	basePrice = "costs more where the prompt is long: this is the price of a short one"
)

// decode reads JSON and keeps its numbers as they are written.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}
