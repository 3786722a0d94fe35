package policy

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

func (r *reader) lanes(n *yaml.Node) (lanes []*laneEntry) {
	r.list("lanes", n, func(n *yaml.Node) {
		l := &laneEntry{at: r.at(n)}
		lanes = append(lanes, l)
		r.object("a lane", n, inLane, func(key string, v *yaml.Node) {
			before := r.rep.errors
			r.laneField(l, key, v)
			l.broken = l.broken || r.rep.errors > before
		})
	})
	return lanes
}

func (r *reader) laneField(l *laneEntry, key string, v *yaml.Node) {
	switch key {
	case "name":
		r.ownText(key, v, &l.name)
	case "upstream":
		r.ownText(key, v, &l.upstream)
	case "drain":
		read(r, key, v, &l.drain, parseQuantity)
	case "max_concurrent":
		read(r, key, v, &l.places, parseQuantity)
	case "max_wait":
		read(r, key, v, &l.maxWait, parseLength)
	case "max_waiting":
		r.object("`max_waiting`", v, inWaiting, func(key string, v *yaml.Node) {
			switch key {
			case "total":
				read(r, key, v, &l.total, parseCount)
			case "per_subject":
				read(r, key, v, &l.perSubject, parseCount)
			}
		})
	case "order":
		r.ownText(key, v, &l.order)
	case "aging":
		read(r, key, v, &l.aging, parseLength)
	case "weighted":
		l.weightedAt = r.at(v)
		r.table("`weighted`", v, func(k *yaml.Node, tier string, v *yaml.Node) {
			w := weightEntry{tier: field[string]{tier, r.at(k), true}}
			read(r, key, v, &w.weight, parseCount)
			l.weights = append(l.weights, w)
		})
	case "turns_by":
		r.ownText(key, v, &l.turnsBy)
	case "on_store_error":
		r.ownText(key, v, &l.onStoreError)
	}
}

// parseCount reads a number of calls, or a weight: `20`, `1_000`, `1k`.
func parseCount(s string) (int64, error) {
	n, err := parseUnits(s)
	if err != nil {
		err = fmt.Errorf("%s is no whole number: write it as 20 or 1_000", quote(s))
	}
	return n, err
}
