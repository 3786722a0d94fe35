package policy

// Upstream is what a domain shares with all its callers: the quota that a provider gives to one key.
type Upstream struct {
	Name string

	limits []*Limit
	owner  []byte
	place  place
	models []field[string] // as they are written
}

// Limits returns the limits of the upstream in the order of the file.
func (u *Upstream) Limits() []*Limit { return u.limits }

// Match returns the match that a request for one of the upstream's models has, whoever asks.
func (u *Upstream) Match() Match { return Match{Limits: u.limits, Owner: u.owner} }

// OfUpstream says that all share the limit who use an upstream.
func (l *Limit) OfUpstream() bool { return l.upstream != nil }

// Upstream returns the upstream that serves a model, or nil: the one that names exactly this model,
// else the one whose pattern, first in the order of the file, matches it. It does not allocate.
func (d *Domain) Upstream(model string) *Upstream { return d.models.of(model) }

// UpstreamNamed returns the upstream of that name, or nil, and of those that there are the one that was probably meant.
func (d *Domain) UpstreamNamed(name string) (u *Upstream, near string) {
	names := make([]string, 0, len(d.upstreams))
	for _, u := range d.upstreams {
		if u.Name == name {
			return u, ""
		}
		names = append(names, u.Name)
	}
	return nil, nearest(name, names)
}

// Upstreams returns the upstreams of the domain in the order of the files.
func (d *Domain) Upstreams() []*Upstream { return d.upstreams }

// models finds upstreams by the name of a model. The zero models knows none.
type models struct {
	exact     map[string]*Upstream
	patterns  wildcards
	upstreams []*Upstream // of the patterns
}

// add lets u serve a model, or all that a pattern matches, unless another upstream does.
func (m *models) add(model string, u *Upstream) {
	switch {
	case isPattern(model):
		m.patterns.add(model)
		m.upstreams = append(m.upstreams, u)
	case m.exact[model] == nil:
		if m.exact == nil {
			m.exact = map[string]*Upstream{}
		}
		m.exact[model] = u
	}
}

func (m *models) of(model string) *Upstream {
	if u := m.exact[model]; u != nil {
		return u
	}
	if len(m.upstreams) == 0 {
		return nil
	}
	var room [128]byte
	if i := m.patterns.first(append(room[:0], model...)); i >= 0 {
		return m.upstreams[i]
	}
	return nil
}
