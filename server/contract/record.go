package contract

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Recorder collects the answers of a server and writes them into the case files.
type Recorder struct {
	mu       sync.Mutex
	answers  map[*Step]any
	policies map[*Policy]string
}

// keep takes an answer. Seconds to the end of a window become "rest of DAY".
func (r *Recorder) keep(s *Step, got any, when *span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		r.answers = map[*Step]any{}
	}
	r.answers[s] = timeless(got, when)
}

func (r *Recorder) has(s *Step) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, kept := r.answers[s]
	return kept
}

// replaced is the answer that this recording has for a step, or else the one that was there.
func (r *Recorder) replaced(s *Step, old any) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, kept := r.answers[s]; kept {
		return a
	}
	return old
}

func (r *Recorder) keepPolicy(p *Policy, got any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policies == nil {
		r.policies = map[*Policy]string{}
	}
	r.policies[p] = brief(got)
	if m, ok := got.(map[string]any); ok {
		if text, ok := m["rejected"].(string); ok {
			r.policies[p] = text
		}
	}
}

// timeless replaces the seconds that are the rest of a known window.
func timeless(v any, when *span) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = timeless(v[i], when)
		}
	case map[string]any:
		for k := range v {
			v[k] = timeless(v[k], when)
		}
		if limit, ok := v["current_limit"].(string); ok {
			_, window, _ := strings.Cut(limit, " per ")
			window, _, _ = strings.Cut(window, " named ")
			replaceRest(v, "duration_until_reset", window, when)
		}
		if limit, ok := v["currentLimit"].(map[string]any); ok {
			if unit, ok := limit["unit"].(string); ok {
				replaceRest(v, "durationUntilReset", unit, when)
			}
		}
		timelessHeader(v, when)
	}
	return v
}

func replaceRest(m map[string]any, key, window string, when *span) {
	text, ok := m[key].(string)
	placeholder := "rest of " + window
	if match := restOf.FindStringSubmatch(placeholder); ok && match != nil && isRestText(match, text, when) {
		m[key] = placeholder
	}
}

// timelessHeader replaces the third of the three headers. Its window is that of the status the other two describe.
func timelessHeader(answer map[string]any, when *span) {
	headers, _ := answer["response_headers_to_add"].([]any)
	statuses, _ := answer["statuses"].([]any)
	if len(headers) != 3 {
		return
	}
	value := func(i int) string {
		for _, v := range headers[i].(map[string]any) {
			return fmt.Sprint(v)
		}
		return ""
	}
	for _, s := range statuses {
		s := s.(map[string]any)
		limit, _ := s["current_limit"].(string)
		requests, window, _ := strings.Cut(limit, " per ")
		window, _, _ = strings.Cut(window, " named ")
		if requests == value(0) && wholeNumber(s["limit_remaining"]) == value(1) {
			reset := headers[2].(map[string]any)
			for name := range reset {
				replaceRest(reset, name, window, when)
			}
		}
	}
}

// Write puts what was recorded into the case files, and touches nothing else in them. It returns the changed paths.
func (r *Recorder) Write(files []*File) ([]string, error) {
	var changed []string
	for _, f := range files {
		var edits []edit
		for _, c := range f.Cases {
			for _, s := range c.Steps {
				answer, kept := r.answers[s]
				if !kept {
					continue
				}
				key := "answer"
				if s.differs() {
					key = "reference"
				}
				text, err := notation(key, answer, s.node.Column-1)
				if err != nil {
					return changed, err
				}
				edits = append(edits, edit{s.node, key, text})
			}
		}
		for _, p := range f.Policies {
			if text, kept := r.policies[p]; kept {
				line, err := flow(text)
				if err != nil {
					return changed, err
				}
				edits = append(edits, edit{p.node, "error", " " + line + "\n"})
			}
		}
		if len(edits) == 0 {
			continue
		}
		text, err := os.ReadFile(f.Path)
		if err != nil {
			return changed, err
		}
		if err := os.WriteFile(f.Path, []byte(applyEdits(string(text), edits)), 0o644); err != nil {
			return changed, err
		}
		changed = append(changed, f.Path)
	}
	return changed, nil
}

// edit sets one key of a block mapping to a text.
type edit struct {
	mapping *yaml.Node
	key     string
	text    string
}

// applyEdits works on the lines of a file, so that everything it does not edit stays as its author wrote it.
func applyEdits(text string, edits []edit) string {
	lines := strings.SplitAfter(text, "\n")
	slices.SortFunc(edits, func(a, b edit) int { return b.mapping.Line - a.mapping.Line })
	for _, e := range edits {
		indent := e.mapping.Column - 1
		fresh := strings.Repeat(" ", indent) + e.key + ":" + e.text
		from := blockEnd(lines, e.mapping.Line, indent)
		to := from
		for i := 0; i < len(e.mapping.Content); i += 2 {
			switch key := e.mapping.Content[i]; key.Value {
			case e.key:
				from, to = key.Line-1, blockEnd(lines, key.Line, indent+1)
			case string(Ration):
				if from == to && e.key == string(Reference) {
					from, to = key.Line-1, key.Line-1
				}
			}
		}
		lines = slices.Replace(lines, from, to, fresh)
	}
	return strings.Join(lines, "")
}

// blockEnd is the index of the first line, from the given one on, that is indented less than a block is. Blank lines
// belong to the block only if more of it follows.
func blockEnd(lines []string, from, indent int) int {
	end := from
	for i := from; i < len(lines); i++ {
		line := lines[i]
		if strings.TrimSpace(line) == "" {
			continue
		}
		if len(line)-len(strings.TrimLeft(line, " ")) < indent {
			break
		}
		end = i + 1
	}
	return end
}

func wholeNumber(v any) string {
	n, _ := v.(float64)
	return fmt.Sprintf("%.0f", n)
}
