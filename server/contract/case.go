package contract

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Column names whose answer a case is compared with: most steps have one answer for both, the deliberate
// differences have one each.
type Column string

// The two columns.
const (
	Reference Column = "reference"
	Ration    Column = "ration"
)

// Transport is the way a ShouldRateLimit request travels.
type Transport string

// The two transports.
const (
	GRPC Transport = "grpc"
	JSON Transport = "json"
)

// Store is where the server under test keeps its counters.
type Store string

// The two stores.
const (
	Memory Store = "memory"
	Redis  Store = "redis"
)

// File is one file of cases.
type File struct {
	Path     string    `yaml:"-"`
	About    string    `yaml:"about"`
	Cases    []*Case   `yaml:"cases"`
	Policies []*Policy `yaml:"policies"`
}

// Case is one sequence of steps against one server. Its counters start at zero.
type Case struct {
	Name  string            `yaml:"name"`
	Why   string            `yaml:"why"`
	Env   map[string]string `yaml:"env"`
	Files map[string]string `yaml:"files"`
	// Layout is how the policy files lie on the disk; see the Layout constants. Empty: plain files.
	Layout Layout `yaml:"layout"`
	// Over restricts the case to one transport, On to one store.
	Over Transport `yaml:"over"`
	On   Store     `yaml:"on"`
	// Alone gives the case a server of its own; cases that disturb the server have one anyway.
	Alone bool    `yaml:"alone"`
	Steps []*Step `yaml:"steps"`

	file *File
}

// Step is one thing done to the server and what came of it. Exactly one of the first group is set.
type Step struct {
	Request *Request           `yaml:"request"`
	RPC     string             `yaml:"rpc"`
	HTTP    *HTTPRequest       `yaml:"http"`
	Health  *string            `yaml:"health"`
	Files   map[string]*string `yaml:"files"`
	Process string             `yaml:"process"`
	Redis   string             `yaml:"redis"`
	// Wait lets a window of this unit end. It has no answer.
	Wait string `yaml:"wait"`

	// Write says how Files are written; empty: as new files moved into place.
	Write WriteMode `yaml:"write"`

	// Answer is the answer of both columns; Reference and Ration are the answers of one.
	Answer    yaml.Node `yaml:"answer"`
	Reference yaml.Node `yaml:"reference"`
	Ration    yaml.Node `yaml:"ration"`

	node *yaml.Node
}

// Policy is a set of policy files that must be refused, and the text of the refusal.
type Policy struct {
	Name  string            `yaml:"name"`
	Env   map[string]string `yaml:"env"`
	Files map[string]string `yaml:"files"`
	// Error is the recorded text, without the file name before it.
	Error string `yaml:"error"`
	// SameUpTo is the beginning of Error that has to be the same; empty: all of it.
	SameUpTo string `yaml:"same_up_to"`

	node *yaml.Node
}

// UnmarshalYAML refuses unknown keys.
func (c *Case) UnmarshalYAML(n *yaml.Node) error {
	type plain Case
	return decodeStrict(n, (*plain)(c))
}

// UnmarshalYAML keeps the node, so that recording knows where an answer belongs.
func (s *Step) UnmarshalYAML(n *yaml.Node) error {
	type plain Step
	if err := decodeStrict(n, (*plain)(s)); err != nil {
		return err
	}
	s.node = n
	return nil
}

// UnmarshalYAML keeps the node, so that recording knows where an answer belongs.
func (p *Policy) UnmarshalYAML(n *yaml.Node) error {
	type plain Policy
	if err := decodeStrict(n, (*plain)(p)); err != nil {
		return err
	}
	p.node = n
	return nil
}

// Load reads every case file of a directory.
func Load(dir string) ([]*File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no case files in %s", dir)
	}
	sort.Strings(paths)
	var files []*File
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f, err := parseFile(path, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		files = append(files, f)
	}
	return files, validate(files)
}

func parseFile(path string, text []byte) (*File, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if len(root.Content) != 1 {
		return nil, errors.New("not one YAML document")
	}
	f := &File{Path: path}
	if err := decodeStrict(root.Content[0], f); err != nil {
		return nil, err
	}
	for _, c := range f.Cases {
		c.file = f
	}
	return f, nil
}

// decodeStrict decodes a mapping and refuses keys that the type does not have. (yaml.v3 offers that only for whole
// documents, and a type's own UnmarshalYAML starts from a node.)
func decodeStrict(n *yaml.Node, into any) error {
	if err := knownKeys(n, into); err != nil {
		return err
	}
	return n.Decode(into)
}

func validate(files []*File) error {
	names := map[string]string{}
	domains := map[string]string{}
	for _, f := range files {
		for _, c := range f.Cases {
			where := f.Path + ": " + c.Name
			if other, taken := names[c.Name]; taken {
				return fmt.Errorf("%s: the name is taken in %s", where, other)
			}
			names[c.Name] = f.Path
			if err := c.validate(); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			if c.alone() {
				continue
			}
			// Cases that share a server share its policy and its counters, so a domain belongs to one of them.
			for _, d := range policyDomains(c.Files) {
				if other, taken := domains[d]; taken && other != c.Name {
					return fmt.Errorf("%s: domain %q belongs to %q", where, d, other)
				}
				domains[d] = c.Name
			}
		}
		for _, p := range f.Policies {
			if p.Name == "" || len(p.Files) == 0 {
				return fmt.Errorf("%s: a policy needs a name and files", f.Path)
			}
		}
	}
	return nil
}

func (c *Case) validate() error {
	if c.Name == "" || len(c.Steps) == 0 {
		return errors.New("a case needs a name and steps")
	}
	for i, s := range c.Steps {
		kinds := 0
		for _, set := range []bool{
			s.Request != nil, s.RPC != "", s.HTTP != nil, s.Health != nil, s.Files != nil, s.Process != "", s.Redis != "",
			s.Wait != "",
		} {
			if set {
				kinds++
			}
		}
		if kinds != 1 {
			return fmt.Errorf("step %d does %d things, not one", i+1, kinds)
		}
		if s.Wait != "" && s.Wait != "SECOND" {
			return fmt.Errorf("step %d waits for a %s; only a SECOND is short enough", i+1, s.Wait)
		}
		if s.differs() && c.Why == "" {
			return fmt.Errorf("step %d has an answer of ration's own: the case must say why", i+1)
		}
		if s.differs() && !s.Answer.IsZero() {
			return fmt.Errorf("step %d has both an answer and one of ration's own", i+1)
		}
	}
	return nil
}

// differs tells whether ration answers the step in its own way.
func (s *Step) differs() bool { return !s.Ration.IsZero() || !s.Reference.IsZero() }

// notAsked stands where the reference has no answer that could be recorded, because it depends on the time of day.
const notAsked = "not asked"

// skips tells whether a step is not for a column: it has an answer of the other one alone. A recording fills in what
// the reference answers, unless the case says that it is not asked.
func (s *Step) skips(c Column, recording bool) bool {
	switch {
	case !s.differs():
		return false
	case c == Ration:
		return s.Ration.IsZero()
	}
	return s.Reference.Value == notAsked || s.Reference.IsZero() && !recording
}

// want is the answer that a column has to give. Nil: the step has no recorded answer.
func (s *Step) want(c Column) *yaml.Node {
	switch {
	case !s.differs():
		if s.Answer.IsZero() {
			return nil
		}
		return &s.Answer
	case c == Ration && !s.Ration.IsZero():
		return &s.Ration
	case c == Reference && !s.Reference.IsZero():
		return &s.Reference
	}
	return nil
}

// alone tells whether the case needs a server of its own.
func (c *Case) alone() bool {
	if c.Alone || c.Layout != Plain || c.disturbs() {
		return true
	}
	for _, s := range c.Steps {
		if endsProcess(&s.Reference) || endsProcess(&s.Answer) {
			return true
		}
	}
	return false
}

// disturbs tells whether the case does more than ask.
func (c *Case) disturbs() bool {
	for _, s := range c.Steps {
		if s.Files != nil || s.Process != "" || s.Redis != "" {
			return true
		}
	}
	return false
}

func endsProcess(n *yaml.Node) bool {
	var v struct {
		Process string `yaml:"process"`
	}
	return n.Kind == yaml.MappingNode && n.Decode(&v) == nil && v.Process == processExits
}

// runsOn tells whether the case is meant for a store and a transport.
func (c *Case) runsOn(s Store, t Transport) bool {
	return (c.On == "" || c.On == s) && (c.Over == "" || c.Over == t)
}

// Group is a set of cases that share one server process.
type Group struct {
	Name  string
	Env   map[string]string
	Cases []*Case
}

// Groups sorts cases into as few processes as they can share: one per environment, and one for each case that
// disturbs its server.
func Groups(files []*File, s Store, t Transport) []*Group {
	byName := map[string]*Group{}
	var groups []*Group
	for _, f := range files {
		for _, c := range f.Cases {
			if !c.runsOn(s, t) {
				continue
			}
			name := envName(c.Env)
			if c.alone() {
				name = "alone " + c.Name
			}
			g := byName[name]
			if g == nil {
				g = &Group{Name: name, Env: c.Env}
				byName[name] = g
				groups = append(groups, g)
			}
			g.Cases = append(g.Cases, c)
		}
	}
	return groups
}

func envName(env map[string]string) string {
	if len(env) == 0 {
		return "plain"
	}
	var parts []string
	for k, v := range env {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// policyDomains lists the domains that policy files define, for telling cases apart.
func policyDomains(files map[string]string) []string {
	var domains []string
	for _, text := range files {
		var root struct {
			Domain string `yaml:"domain"`
		}
		if yaml.Unmarshal([]byte(text), &root) == nil && root.Domain != "" {
			domains = append(domains, root.Domain)
		}
	}
	return domains
}
