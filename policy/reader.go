package policy

import "go.yaml.in/yaml/v3"

// reader turns the YAML of one file into a document.
//
// It goes over the file twice. check judges keys and kinds of values as envoyproxy/ratelimit does,
// anywhere in the file and wherever a key stands; the rest takes the values and judges their types
// and places. Fields take effect in the order in which they are written, merge keys among them, and
// a rate_limit that is given twice is filled in twice: so do established files mean what they meant.
// What stands below ration's own keys is read by stricter rules: see object.
type reader struct {
	file string
	rep  *report
	free string // the free mapping that is being read, if it is not metadata
}

func (r *reader) at(n *yaml.Node) place { return place{r.file, n.Line, n.Column} }

// document reads a file; root is nil for an empty one. It returns nil where the file is no policy.
func (r *reader) document(root *yaml.Node) *document {
	doc := &document{}
	if root == nil {
		return doc
	}
	if root.Kind != yaml.MappingNode {
		r.typeError("a policy file", "a mapping with domain and descriptors", root)
		return nil
	}
	r.check(root)
	r.fields(root, inRoot, func(key string, v *yaml.Node) {
		switch key {
		case "domain":
			r.text(key, v, &doc.domain)
		case "descriptors":
			doc.descriptors = r.descriptors(v)
		case "tiers":
			doc.tiers, doc.tiersAt = r.tiers(v), r.at(v)
		case "trust_tier":
			r.ownBool(key, v, &doc.trustTier)
		case "limits":
			doc.limits = r.limits(v)
		case "upstreams":
			doc.upstreams = r.upstreams(v)
		case "lanes":
			doc.lanes = r.lanes(v)
		case "subjects":
			doc.subjects = r.subjects(v)
		case "prices":
			doc.prices = r.prices(v)
		case "anonymous":
			doc.anonymous = r.anonymous(v)
		case "usage":
			doc.usage = r.usage(v)
		case "retry_up_to":
			read(r, key, v, &doc.answers.retryUpTo, parseLength)
		case "exhausted_status":
			r.ownText(key, v, &doc.answers.exhaustedStatus)
		case "on_failure":
			r.ownText(key, v, &doc.onFailure)
		}
	})
	return doc
}

func (r *reader) descriptors(list *yaml.Node) []*descriptor {
	var out []*descriptor
	r.mappings("descriptors", list, func(n *yaml.Node) {
		d := &descriptor{at: r.at(n)}
		out = append(out, d)
		r.fields(n, inDescriptor, func(key string, v *yaml.Node) {
			switch key {
			case "key":
				r.text(key, v, &d.key)
			case "value":
				r.text(key, v, &d.value)
			case "rate_limit":
				r.rateLimit(v, &d.rateLimit)
			case "descriptors":
				d.descriptors = r.descriptors(v)
			case "shadow_mode":
				r.bool(key, v, &d.shadow)
			case "quota_mode":
				r.bool(key, v, &d.quota)
			case "share_threshold":
				r.bool(key, v, &d.share)
			case "metadata":
				r.metadata(v, &d.metadata)
			case "subject":
				r.ownBool(key, v, &d.subject)
			case "limits":
				d.limits = r.limits(v)
			case "detailed_metric", "value_to_metric":
				r.bool(key, v, new(field[bool]))
			}
		})
	})
	return out
}

func (r *reader) rateLimit(n *yaml.Node, into **rateLimit) {
	switch {
	case isNull(n):
		*into = nil
		return
	case n.Kind != yaml.MappingNode:
		r.wrongType("rate_limit", "a mapping", n)
		return
	case *into == nil:
		*into = &rateLimit{at: r.at(n)}
	}
	l := *into
	r.fields(n, inRateLimit, func(key string, v *yaml.Node) {
		switch key {
		case "requests_per_unit":
			r.uint32(key, v, &l.requestsPerUnit)
		case "unit":
			r.text(key, v, &l.unit)
		case "unlimited":
			r.bool(key, v, &l.unlimited)
		case "name":
			r.text(key, v, &l.name)
		case "replaces":
			l.replaces = nil
			r.mappings(key, v, func(n *yaml.Node) {
				rep := replaced{at: r.at(n)}
				r.fields(n, inReplaces, func(key string, v *yaml.Node) { r.text(key, v, &rep.name) })
				l.replaces = append(l.replaces, rep)
			})
		}
	})
}
