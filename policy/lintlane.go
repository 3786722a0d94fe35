package policy

// lanes warns of lanes in which nobody waits, and of those that tell subjects apart where no request has one.
func (l *linter) lanes(d *Domain, whole bool) {
	for _, ln := range d.lanes {
		if u := ln.Upstream; u != nil && len(u.limits)+len(ln.limits) == 0 {
			l.rep.warn(ln.place(), "nobody waits in lane `%s`: upstream `%s` has no limits, and the lane neither `drain` nor `max_concurrent`",
				clip(ln.Name), clip(u.Name))
		}
		if whole && ln.asksSubjects && len(d.root.payers(nil)) == 0 {
			l.rep.warn(ln.place(), "all callers are one to lane `%s`, with one `per_subject` and no turns to take: "+
				"no descriptor has `subject: true`", clip(ln.Name))
		}
	}
}
