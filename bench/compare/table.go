package main

import (
	"fmt"
	"io"
	"slices"
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
	footprints  []footprint
	wakings     []waking
	crowds      []crowd
	// against are the contestants that all others are set in relation to.
	against []string
}

func (d document) write(w io.Writer) error {
	var out strings.Builder
	d.setting(&out)
	for _, base := range d.against {
		d.overview(&out, base)
		for _, suite := range []suite{limits, accounts, lanes, rules} {
			d.matrices(&out, suite, base)
		}
	}
	d.rules(&out)
	d.lanes(&out)
	d.memory(&out)
	for rest := d.scenarios; len(rest) > 0; {
		together := 1
		for together < len(rest) && rest[0].Row != "" && rest[together].Row == rest[0].Row {
			together++
		}
		d.details(&out, rest[:together])
		rest = rest[together:]
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// disturbance is the share of the machine that others may take before the reader is warned.
const disturbance = 0.1

// setting says what was measured, where and when.
func (d document) setting(out *strings.Builder) {
	fmt.Fprintf(out, "Measured %s on %s.", d.machine.Time.UTC().Format("2006-01-02 15:04 UTC"), d.machine)
	if len(d.results) > 0 {
		d.measuring(out)
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
		if len(first) > 0 {
			table.row(c.Name, c.About, whole(spreadOf(first)))
		}
	}
	table.write(out)
}

// measuring says how it was measured, and whether anything disturbed it.
func (d document) measuring(out *strings.Builder) {
	fmt.Fprintf(out, " Rounds: %d; in each, per scenario and contestant, %v of warm-up and %v of measurement; half of that "+
		"where several loads stand in one table. Keys: %s. Figures are medians over the rounds; ratios are taken within a "+
		"round, and their smallest and largest value is in parentheses.\n\n",
		d.pace.Rounds, d.pace.Warmup, d.pace.Duration, grouped(float64(d.pace.Keys)))
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
	header := []string{"scenario"}
	var others []string
	for _, c := range d.contestants {
		if c.Name != base {
			header, others = append(header, c.Name), append(others, c.Name)
		}
	}
	for _, m := range metrics {
		table := newTable(1, header...)
		for _, s := range d.scenarios {
			if s.Row != "" || !m.wanted(s) {
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
		table.dropEmpty()
		if len(table.rows) > 0 {
			fmt.Fprintf(out, "### %s, × %s\n\n", m.title, base)
			table.write(out)
		}
	}
}

// matrices are the cost of scenarios that differ in two ways: the server's in relation to one contestant, and Redis's.
func (d document) matrices(out *strings.Builder, suite suite, base string) {
	var rows, columns []string
	cells := make(map[[2]string]scenario)
	for _, s := range d.scenarios {
		if s.Suite != suite || s.Row == "" {
			continue
		}
		if !slices.Contains(rows, s.Row) {
			rows = append(rows, s.Row)
		}
		if !slices.Contains(columns, s.Column) {
			columns = append(columns, s.Column)
		}
		cells[[2]string{s.Row, s.Column}] = s
	}
	matrix := func(title string, format func(spread) string, figure func(scenario) spread) {
		table, filled := newTable(1, append([]string{suite.rows()}, columns...)...), false
		for _, row := range rows {
			line := []string{row}
			for _, column := range columns {
				cell := figure(cells[[2]string{row, column}])
				filled = filled || cell.N > 0
				line = append(line, format(cell))
			}
			table.row(line...)
		}
		if filled {
			fmt.Fprintf(out, "### %s\n\n", title)
			table.write(out)
		}
	}
	for _, c := range d.contestants {
		if c.Name == base {
			continue
		}
		matrix(fmt.Sprintf("Server CPU per decision, %s × %s", c.Name, base), times, func(s scenario) spread {
			return d.results.ratio(s.Name, c.Name, base, serverCPU)
		})
		if base == floorName {
			matrix("Redis CPU per limit of "+c.Name+", µs", hundredths, func(s scenario) spread {
				return d.results.over(s.Name, c.Name, redisCPUPerLimit(s))
			})
		}
	}
}

// rows says what the rows of a suite's matrix are.
func (s suite) rows() string {
	switch s {
	case rules:
		return "rules"
	case accounts, lanes:
		return "calls of models"
	default:
		return "algorithm"
	}
}

// rules sets a policy of many rules in relation to one of few. The floor, which has no policy, shows how exact that is.
func (d document) rules(out *strings.Builder) {
	var callers []int
	header := []string{"contestant"}
	for _, s := range d.scenarios {
		if s.Suite == rules && !slices.Contains(callers, s.Callers) {
			callers, header = append(callers, s.Callers), append(header, counted(s.Callers, "caller"))
		}
	}
	table, filled := newTable(1, header...), false
	for _, c := range d.contestants {
		row, has := []string{c.Name}, false
		for _, n := range callers {
			ratio := d.results.growth(rulesName(n, manyRules), rulesName(n, fewRules), c.Name, serverCPU)
			row, has = append(row, times(ratio)), has || ratio.N > 0
		}
		if has {
			table.row(row...)
			filled = true
		}
	}
	if filled {
		fmt.Fprintf(out, "### Server CPU per decision with %s rules, × with %d\n\n", grouped(manyRules), fewRules)
		table.write(out)
	}
}

// lanes sets calls that are acquired in relation to those that are reserved, and says what waiting takes.
func (d document) lanes(out *strings.Builder) {
	table := newTable(2, "callers", "contestant", "decisions/s", "p50", "p99", "server CPU", "Redis CPU")
	for _, s := range d.scenarios {
		if s.Suite != lanes || s.Mix.Account.Lane == "" {
			continue
		}
		for _, c := range d.contestants {
			ratio := func(metric metric) string {
				return times(d.results.growth(s.Name, laneName("", s.Callers), c.Name, metric))
			}
			if row := []string{counted(s.Callers, "caller"), c.Name, ratio(throughput)}; row[2] != none {
				table.row(append(row, ratio(p50), ratio(p99), ratio(serverCPU), ratio(redisCPU))...)
			}
		}
	}
	if len(table.rows) > 0 {
		out.WriteString("### Acquire and Settle where nobody waits, × Reserve and Settle\n\n")
		table.write(out)
	}
	if len(d.wakings) > 0 {
		out.WriteString("### From the end of a call to the next one's turn\n\n")
		table := newTable(1, "contestant", "replicas", "turns", "p50 µs", "p99 µs", "p50 µs since Settle was sent", "p99 µs since Settle was sent")
		for _, w := range d.wakings {
			table.row(w.Contestant, grouped(float64(w.Replicas)), grouped(float64(w.Turns)), grouped(w.SinceSettled.P50),
				grouped(w.SinceSettled.P99), grouped(w.SinceSent.P50), grouped(w.SinceSent.P99))
		}
		table.write(out)
	}
	if len(d.crowds) > 0 {
		out.WriteString("### What those take who wait, per second\n\n")
		table := newTable(2, "contestant", "lane", "waiters", "turns", "scripts of Redis", "commands of Redis", "commands per waiter",
			"server, % of a core", "Redis, % of a core")
		for _, c := range d.crowds {
			redis := []string{none, none, none}
			percent := none
			if c.Commands > 0 {
				redis = []string{grouped(c.Scripts), grouped(c.Commands), fmt.Sprintf("%.3f", c.Commands/float64(c.Waiters))}
				percent = fmt.Sprintf("%.1f", 100*c.RedisCores)
			}
			row := append([]string{c.Contestant, c.Lane, grouped(float64(c.Waiters)), fmt.Sprintf("%.1f", c.Turns)}, redis...)
			table.row(append(row, fmt.Sprintf("%.1f", 100*c.ServerCores), percent)...)
		}
		table.write(out)
	}
}

// memory is what many subjects take.
func (d document) memory(out *strings.Builder) {
	if len(d.footprints) == 0 {
		return
	}
	fmt.Fprintf(out, "### Memory of many subjects\n\nEach has made one request, which %d limits remember.\n\n", limitsPerSubject)
	table := newTable(1, "contestant", "subjects", "resident, MB", "its peak, MB", "live heap, MB", "live heap per subject, bytes",
		"resident before, MB", "requests/s meanwhile")
	for _, f := range d.footprints {
		heap, each := none, none
		if f.After.LiveHeap > 0 {
			heap, each = megabytes(f.After.LiveHeap), grouped(f.perSubject())
		}
		table.row(f.Contestant, grouped(float64(f.Subjects)), megabytes(f.After.Resident), megabytes(f.After.Peak), heap, each,
			megabytes(f.Before.Resident), grouped(float64(f.Subjects)/f.Took.Seconds()))
	}
	table.write(out)
}

// details are all figures of one scenario, or of some that differ in their column.
func (d document) details(out *strings.Builder, together []scenario) {
	if s := together[0]; s.Row == "" {
		fmt.Fprintf(out, "### %s (`%s`)\n\n", s.Title, s.Name)
	} else {
		fmt.Fprintf(out, "### %s (`%s`…)\n\n", s.Title, s.Name)
	}
	header, text := []string{"contestant"}, 1
	if together[0].Row != "" {
		header, text = []string{"load", "contestant"}, 2
	}
	header = append(header, "decisions/s", "p50 µs", "p99 µs", "p99.9 µs",
		"server CPU µs", "Redis CPU µs", "Redis CPU µs per limit", "generator CPU µs",
		"decisions/s × floor", "p99 × floor", "server CPU × floor")
	if together[0].open() {
		header = append(header, "offered/s", "sent late, p99 µs")
	}
	table, overloaded := newTable(text, header...), false
	for _, s := range together {
		for _, c := range d.contestants {
			if d.results.over(s.Name, c.Name, throughput).N == 0 {
				continue
			}
			keptUp := !s.open() || d.results.keptUp(s.Name, c.Name)
			overloaded = overloaded || !keptUp
			table.row(d.detail(s, c.Name, keptUp)...)
		}
	}
	table.dropEmpty()
	table.write(out)
	if overloaded {
		out.WriteString("† did not keep up with the offered rate in every round: where it did not, latencies tell how " +
			"long the run was, not how fast it is.\n\n")
	}
}

// detail is one row of details.
func (d document) detail(s scenario, contestant string, keptUp bool) []string {
	figure := func(metric metric) spread { return d.results.over(s.Name, contestant, metric) }
	ratio := func(metric metric) string { return times(d.results.ratio(s.Name, contestant, floorName, metric)) }
	var row []string
	if s.Row != "" {
		row = append(row, s.Column)
	}
	name := contestant
	if !keptUp {
		name += " †"
	}
	row = append(row, name, whole(figure(throughput)), whole(figure(p50)), whole(figure(p99)), whole(figure(p999)),
		tenths(figure(serverCPU)), hundredths(figure(redisCPU)), hundredths(figure(redisCPUPerLimit(s))),
		tenths(figure(generatorCPU)), ratio(throughput), ratio(p99), ratio(serverCPU))
	if s.open() {
		row = append(row, whole(figure(offered)), whole(figure(lateness)))
	}
	return row
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
	return grouped(s.Median)
}

func tenths(s spread) string     { return decimal(s, 1) }
func hundredths(s spread) string { return decimal(s, 2) }

func decimal(s spread, digits int) string {
	if s.N == 0 {
		return none
	}
	return fmt.Sprintf("%.*f", digits, s.Median)
}

// grouped writes a number without decimals, with commas between thousands.
func grouped(value float64) string {
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
	return &table{textColumns: textColumns, header: slices.Clone(header)}
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// dropEmpty removes the columns in which nothing was measured.
func (t *table) dropEmpty() {
	for column := len(t.header) - 1; column >= t.textColumns; column-- {
		if slices.ContainsFunc(t.rows, func(row []string) bool { return row[column] != none }) {
			continue
		}
		t.header = slices.Delete(t.header, column, column+1)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], column, column+1)
		}
	}
}

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
