package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/price/pricelist"
)

// pricesCmd is ration prices.
type pricesCmd struct {
	Show   pricesShowCmd   `cmd:"" default:"withargs" help:"Show the price book that ships, or what one model costs."`
	Import pricesImportCmd `cmd:"" help:"Turn a public list of prices into the prices of a policy."`
}

// pricesShowCmd is ration prices [show].
type pricesShowCmd struct {
	Model string `arg:"" optional:"" help:"The name of a model, as callers send it. Without one: the whole book."`
	At    day    `env:"-" placeholder:"DATE" help:"What it costs on that day, as 2026-01-31. Today."`
}

// day is the begin of a day in UTC; zero means now.
type day time.Time

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *day) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("%q is no day: write it as 2026-01-31", text)
	}
	*d = day(t)
	return nil
}

// Run implements the command.
func (c *pricesShowCmd) Run(to streams) error {
	book := price.Builtin()
	if c.Model == "" {
		return c.table(to, book)
	}
	at := time.Time(c.At)
	if at.IsZero() {
		at = time.Now()
	}
	q, ok := book.Find(c.Model, at)
	if !ok {
		suggestion := ""
		if near := book.Nearest(c.Model); near != "" {
			suggestion = fmt.Sprintf(": did you mean %s?", near)
		}
		return fmt.Errorf("the price book %s has no price for %s%s", book.Version(), c.Model, suggestion)
	}
	w := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "model\t%s\n", c.Model)
	fmt.Fprintf(w, "entry\t%s\n", q.Model)
	if !q.From.IsZero() {
		fmt.Fprintf(w, "since\t%s\n", q.From.Format(time.DateOnly))
	}
	for _, line := range []struct {
		class string
		rate  price.Rate
	}{{"input", q.Input}, {"output", q.Output}, {"cache read", q.CacheRead}, {"cache write", q.CacheWrite}} {
		fmt.Fprintf(w, "%s\t$%v per million tokens\n", line.class, line.rate)
	}
	if q.MaxOutput > 0 {
		fmt.Fprintf(w, "most output\t%d tokens\n", q.MaxOutput)
	}
	fmt.Fprintf(w, "price book\t%s\n", q.Version)
	return w.Flush()
}

// table prints the book.
func (*pricesShowCmd) table(to streams, book *price.Book) error {
	fmt.Fprintf(to.out, "Price book %s: US dollars per million tokens\n\n", book.Version())
	w := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tINPUT\tOUTPUT\tCACHE READ\tCACHE WRITE\tSINCE")
	for _, m := range book.Models() {
		if m.Unpriced {
			continue
		}
		since := ""
		if !m.From.IsZero() {
			since = "\t" + m.From.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%v%s\n", m.Name, m.Input, m.Output, m.CacheRead, m.CacheWrite, since)
	}
	return w.Flush()
}

// pricesImportCmd is ration prices import.
type pricesImportCmd struct {
	File   string   `arg:"" help:"LiteLLM's model_prices_and_context_window.json, or the data.json of genai-prices."`
	Models []string `arg:"" optional:"" name:"model" help:"Only entries with these names; * stands for any letters."`
}

// Run implements the command.
func (c *pricesImportCmd) Run(to streams) error {
	data, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	list, err := pricelist.Read(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	for _, n := range list.Notes {
		if c.wants(n.Name) {
			fmt.Fprintln(to.err, n)
		}
	}
	models := slices.DeleteFunc(list.Models, func(m price.Model) bool { return !c.wants(m.Name) })
	if len(models) == 0 {
		return fmt.Errorf("%s has no such model with prices", c.File)
	}
	fmt.Fprintln(to.out, "prices:\n  models:")
	for len(models) > 0 {
		name := models[0].Name
		end := slices.IndexFunc(models, func(m price.Model) bool { return m.Name != name })
		if end < 0 {
			end = len(models)
		}
		if end == 1 {
			fmt.Fprintf(to.out, "    %s: %s\n", yamlKey(name), yamlPrices(models[0]))
		} else {
			fmt.Fprintf(to.out, "    %s:\n", yamlKey(name))
			for _, m := range models[:end] {
				fmt.Fprintf(to.out, "      - %s\n", yamlPrices(m))
			}
		}
		models = models[end:]
	}
	return nil
}

// wants reports whether the name is among those that were asked for.
func (c *pricesImportCmd) wants(name string) bool {
	return len(c.Models) == 0 || slices.ContainsFunc(c.Models, func(pattern string) bool { return price.Matches(pattern, name) })
}

// yamlKey returns the name of a model as a key of YAML, quoted where it has to be.
func yamlKey(name string) string {
	// A hyphen keeps it from being a word of YAML's own, as `no` is.
	if regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.]*-[A-Za-z0-9.*/-]*$`).MatchString(name) {
		return name
	}
	return strconv.Quote(name)
}

// yamlPrices returns the prices of a model as a policy writes them.
func yamlPrices(m price.Model) string {
	var fields []string
	add := func(key string, value any) { fields = append(fields, fmt.Sprintf("%s: %v", key, value)) }
	dollars := func(r price.Rate) string { return strconv.Quote(r.String()) }
	if !m.From.IsZero() {
		add("from", m.From.Format(time.DateOnly))
	}
	add("input", dollars(m.Input))
	add("output", dollars(m.Output))
	if m.HasCacheRead {
		add("cache_read", dollars(m.CacheRead))
	}
	if m.HasCacheWrite {
		add("cache_write", dollars(m.CacheWrite))
	}
	if m.MaxOutput > 0 {
		add("max_output", m.MaxOutput)
	}
	return "{ " + strings.Join(fields, ", ") + " }"
}
