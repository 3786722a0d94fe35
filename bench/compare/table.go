package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A document is what is written about a comparison, as Markdown.
type document struct {
	machine     machine
	contestants []contestant
	scenarios   []scenario
	pace        pace
	results     results
	starts      []start
	// against are the contestants that all others are set in relation to.
	against []string
}

func (d document) write(w io.Writer) error {
	var out strings.Builder
	d.setting(&out)
	for _, base := range d.against {
		d.overview(&out, base)
	}
	for _, scenario := range d.scenarios {
		d.details(&out, scenario)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// disturbance is the share of the machine that others may take before the reader is warned.
const disturbance = 0.1

// setting says what was measured, where and when.
func (d document) setting(out *strings.Builder) {
	fmt.Fprintf(out, "Measured %s on %s. Rounds: %d; in each, per scenario and contestant, %v of warm-up and %v of "+
		"measurement. Keys: %s. Figures are medians over the rounds; ratios are taken within a round, and their smallest and "+
		"largest value is in parentheses.\n\n",
		d.machine.Time.UTC().Format("2006-01-02 15:04 UTC"), d.machine, d.pace.Rounds, d.pace.Warmup, d.pace.Duration,
		count(float64(d.pace.Keys)))
	disturbed := 0
	var others []float64
	for _, run := range d.results {
		cores := *run.Report.OthersCores
		others = append(others, cores)
		if cores > disturbance*float64(d.machine.Cores) {
			disturbed++
		}
	}
	noise := spreadOf(others)
	fmt.Fprintf(out, "Besides server, Redis and generator, %.2f cores were busy during a run (median; largest: %.2f).",
		noise.Median, noise.Max)
	if disturbed > 0 {
		fmt.Fprintf(out, " **The machine was not quiet: in %d of %d runs something else took more than a tenth of it.**",
			disturbed, noise.N)
	}
	out.WriteString("\n\n")

	table := newTable(2, "contestant", "what it is", "start to first answer, ms")
	for _, c := range d.contestants {
		var first []float64
		for _, s := range d.starts {
			if s.Contestant == c.Name {
				first = append(first, float64(s.FirstAnswer)/float64(time.Millisecond))
			}
		}
		table.row(c.Name, c.About, fmt.Sprintf("%.0f", spreadOf(first).Median))
	}
	table.write(out)
}

// overview sets the cost of all contestants in relation to one of them.
func (d document) overview(out *strings.Builder, base string) {
	metrics := []struct {
		title  string
		metric metric
		wanted func(scenario) bool
	}{
		{"Server CPU per decision", serverCPU, func(scenario) bool { return true }},
		{"Redis CPU per decision", redisCPU, func(scenario) bool { return true }},
		{"p99", p99, scenario.open},
	}
	for _, m := range metrics {
		header := []string{"scenario"}
		var others []string
		for _, c := range d.contestants {
			if c.Name != base {
				header, others = append(header, c.Name), append(others, c.Name)
			}
		}
		table := newTable(1, header...)
		for _, s := range d.scenarios {
			if !m.wanted(s) {
				continue
			}
			row, filled := []string{s.Name}, false
			for _, other := range others {
				ratio := d.results.ratio(s.Name, other, base, m.metric)
				filled = filled || ratio.N > 0
				row = append(row, times(ratio))
			}
			if filled {
				table.row(row...)
			}
		}
		if len(table.rows) > 0 {
			fmt.Fprintf(out, "### %s, × %s\n\n", m.title, base)
			table.write(out)
		}
	}
}

// details are all figures of one scenario.
func (d document) details(out *strings.Builder, s scenario) {
	fmt.Fprintf(out, "### %s (`%s`)\n\n", s.Title, s.Name)
	header := []string{"contestant", "decisions/s", "p50 µs", "p99 µs", "p99.9 µs",
		"server CPU µs", "Redis CPU µs", "Redis CPU µs per limit", "generator CPU µs",
		"decisions/s × floor", "p99 × floor", "server CPU × floor"}
	if s.open() {
		header = append(header, "offered/s", "sent late, p99 µs")
	}
	table, overloaded := newTable(1, header...), false
	for _, c := range d.contestants {
		figure := func(metric metric) spread { return d.results.over(s.Name, c.Name, metric) }
		ratio := func(metric metric) string { return times(d.results.ratio(s.Name, c.Name, floorName, metric)) }
		name := c.Name
		if s.open() && !d.results.keptUp(s.Name, c.Name) {
			name, overloaded = name+" †", true
		}
		row := []string{name, whole(figure(throughput)), whole(figure(p50)), whole(figure(p99)), whole(figure(p999)),
			tenths(figure(serverCPU)), hundredths(figure(redisCPU)), hundredths(figure(redisCPUPerLimit)),
			tenths(figure(generatorCPU)), ratio(throughput), ratio(p99), ratio(serverCPU)}
		if s.open() {
			row = append(row, whole(figure(offered)), whole(figure(lateness)))
		}
		table.row(row...)
	}
	table.write(out)
	if overloaded {
		out.WriteString("† did not keep up with the offered rate in every round: where it did not, latencies tell how " +
			"long the run was, not how fast it is.\n\n")
	}
}

const none = "–"

func times(s spread) string {
	switch s.N {
	case 0:
		return none
	case 1:
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

func whole(s spread) string {
	if s.N == 0 {
		return none
	}
	return count(s.Median)
}

func tenths(s spread) string     { return decimal(s, 1) }
func hundredths(s spread) string { return decimal(s, 2) }

func decimal(s spread, digits int) string {
	if s.N == 0 {
		return none
	}
	return fmt.Sprintf("%.*f", digits, s.Median)
}

// count writes a number without decimals, with commas between thousands.
func count(value float64) string {
	digits := fmt.Sprintf("%.0f", value)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// A table is a Markdown table. Its first columns hold text; the others hold numbers and are aligned to the right.
type table struct {
	textColumns int
	header      []string
	rows        [][]string
}

func newTable(textColumns int, header ...string) *table {
	return &table{textColumns: textColumns, header: header}
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(out *strings.Builder) {
	line := func(cells []string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.header)
	rule := make([]string, len(t.header))
	for i := range rule {
		if rule[i] = "---:"; i < t.textColumns {
			rule[i] = "---"
		}
	}
	line(rule)
	for _, cells := range t.rows {
		line(cells)
	}
	out.WriteString("\n")
}
