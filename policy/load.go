package policy

import "time"

// Options says how policies are read. The zero Options is ration's own way.
type Options struct {
	// MergeDomains lets several files add descriptors to one domain, each at its top level, in the
	// order of the files. Otherwise a second file of a domain is an error.
	MergeDomains bool
	// Strict makes errors of the warnings.
	Strict bool
	// AllFiles reads every file of a directory, whatever its name ends in. Otherwise only *.yaml
	// and *.yml are read.
	AllFiles bool
	// DotFiles reads files and directories too whose names begin with a dot.
	DotFiles bool
	// Now tells the time, by which prices of models that a policy names are looked up, and the book that ships may
	// be found old. nil: it is never old, and every price is there that will ever count.
	Now func() time.Time
}

// Source is one policy file.
type Source struct {
	Name string // for messages
	Data []byte
}

// Load reads and compiles the policy that lies at paths: files, and directories with all that is
// below them, in the order of their names. Symbolic links are followed; a file that is reached in
// several ways is read once.
//
// It returns warnings, and an error of type *[Errors] that holds every error found, not only the
// first. With an error there is no policy. A directory without any policy file is a warning; that
// there is no file in any of paths is an error.
func Load(paths []string, opts Options) (*Policy, []Problem, error) {
	return readFiles(paths, opts).compile(opts)
}

// Parse compiles sources as [Load] does with what it has read. Whatever bytes they hold, its time
// and memory are bounded by their size.
func Parse(sources []Source, opts Options) (*Policy, []Problem, error) {
	return (&files{sources: sources}).compile(opts)
}

// compile compiles what was read, adding the problems of reading.
func (f *files) compile(opts Options) (*Policy, []Problem, error) {
	rep := newReport(opts)
	for _, p := range f.problems {
		p.Warning = p.Warning && !opts.Strict
		rep.add(place{file: p.File}, p)
	}
	c := compiler{merge: opts.MergeDomains, rep: rep, domains: map[string]*draft{}}
	whole := !rep.failed()
	for _, s := range f.sources {
		root, ok := parseYAML(s, rep)
		if !ok {
			whole = false
			continue
		}
		r := reader{file: s.Name, rep: rep}
		if doc := r.document(root); doc != nil {
			c.document(s.Name, doc)
		}
	}
	p := c.policy(f.sources)
	p.lint(rep, whole, opts.Now)
	warnings, err := rep.result(f.sources)
	if err != nil {
		return nil, warnings, err
	}
	return p, warnings, nil
}
