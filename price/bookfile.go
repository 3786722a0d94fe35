package price

import (
	"cmp"
	_ "embed" // the book that ships
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed builtin.tsv
var builtin string

// Builtin returns the book that ships with ration: figures of a public price list, whose date and source the head of
// builtin.tsv names. The first call reads them, which takes some milliseconds.
func Builtin() *Book { return readBuiltin() }

var readBuiltin = sync.OnceValue(func() *Book {
	b, err := ParseBook(builtin)
	if err != nil {
		panic(fmt.Sprintf("the price book that ships is broken: %v", err))
	}
	return b
})

// columns of a book's file, divided by tabs. Empty ones at the end of a line are left out. Prices are in dollars per
// million tokens.
const columns = "model\tinput\toutput\tcache_read\tcache_write\tmax_output\tfrom"

// unpriced stands for the prices of names that have none.
const unpriced = "-"

// dateLine begins the line with the day of a book's figures.
const dateLine = "# date: "

// ParseBook reads a book as [FormatBook] writes it.
func ParseBook(text string) (*Book, error) {
	date, models, err := readBook(text)
	if err != nil {
		return nil, err
	}
	return newBook(models, nil, date)
}

// readBook reads the day and the entries of a book.
func readBook(text string) (date time.Time, models []Model, err error) {
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if day, ok := strings.CutPrefix(line, dateLine); ok {
			date, err = time.Parse(time.DateOnly, day)
		} else if !strings.HasPrefix(line, "#") && line != columns {
			var m Model
			m, err = parseModel(strings.Split(line, "\t"))
			models = append(models, m)
		}
		if err != nil {
			return date, nil, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	if date.IsZero() {
		return date, nil, fmt.Errorf("there is no line that begins with %q", dateLine)
	}
	return date, models, nil
}

func parseModel(cells []string) (m Model, err error) {
	const input, output, read, write, most, from, all = 1, 2, 3, 4, 5, 6, 7
	if len(cells) <= output || len(cells) > all {
		return m, fmt.Errorf("%d columns: want a model, its input and output price, and at most %d", len(cells), all)
	}
	cells = append(cells, make([]string, all-len(cells))...)
	m.Name = cells[0]
	if m.Unpriced = cells[input] == unpriced && cells[output] == unpriced; m.Unpriced {
		return m, nil
	}
	m.HasCacheRead, m.HasCacheWrite = cells[read] != "", cells[write] != ""
	var problems [all]error
	m.Input, problems[input] = ParseRate(cells[input])
	m.Output, problems[output] = ParseRate(cells[output])
	if m.HasCacheRead {
		m.CacheRead, problems[read] = ParseRate(cells[read])
	}
	if m.HasCacheWrite {
		m.CacheWrite, problems[write] = ParseRate(cells[write])
	}
	if cells[most] != "" {
		m.MaxOutput, problems[most] = strconv.ParseInt(cells[most], 10, 64)
	}
	if cells[from] != "" {
		m.From, problems[from] = time.Parse(time.DateOnly, cells[from])
	}
	return m, errors.Join(problems[:]...)
}

// FormatBook writes a book: remarks, which have no line ends in them, the day of the figures, and the models, by name
// and then by day.
func FormatBook(remarks []string, date time.Time, models []Model) string {
	var b strings.Builder
	for _, r := range remarks {
		fmt.Fprintf(&b, "# %s\n", r)
	}
	fmt.Fprintf(&b, "%s%s\n%s\n", dateLine, date.Format(time.DateOnly), columns)
	models = slices.SortedFunc(slices.Values(models), func(x, y Model) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), x.From.Compare(y.From))
	})
	for _, m := range models {
		cells := []string{m.Name, m.Input.String(), m.Output.String(), "", "", "", ""}
		if m.Unpriced {
			cells[1], cells[2] = unpriced, unpriced
		}
		if m.HasCacheRead {
			cells[3] = m.CacheRead.String()
		}
		if m.HasCacheWrite {
			cells[4] = m.CacheWrite.String()
		}
		if m.MaxOutput > 0 {
			cells[5] = strconv.FormatInt(m.MaxOutput, 10)
		}
		if !m.From.IsZero() {
			cells[6] = m.From.Format(time.DateOnly)
		}
		b.WriteString(strings.TrimRight(strings.Join(cells, "\t"), "\t") + "\n")
	}
	return b.String()
}
