package policy

import "github.com/rationhq/ration/price"

// UnknownModel says what becomes of a call to a model that has no price, where money is limited.
type UnknownModel uint8

// What becomes of a call without a price.
const (
	UnknownModelDeny      UnknownModel = iota // it is refused
	UnknownModelAssumeMax                     // each of its tokens costs as much as the dearest of all models: [price.Book.Dearest]
	UnknownModelAllow                         // it costs nothing
	unknownModels
)

var unknownModelNames = [unknownModels]string{
	UnknownModelDeny: "deny", UnknownModelAssumeMax: "assume_max", UnknownModelAllow: "allow",
}

// String returns the name that policies use: "assume_max".
func (u UnknownModel) String() string { return unknownModelNames[u] }

// Prices returns what models cost: what the domain says, over the book that ships, unless the domain wants none. It
// is nil where the domain has neither `prices` nor a limit of cost, and no lane with turns by cost.
func (d *Domain) Prices() *price.Book { return d.prices.book }

// UnknownModel returns what becomes of a call to a model that is not in [Domain.Prices].
func (d *Domain) UnknownModel() UnknownModel { return d.prices.unknown }

// prices are those of a domain. The zero prices are none.
type prices struct {
	book    *price.Book
	unknown UnknownModel
	own     int  // how many models, or patterns, the domain has prices for itself
	shipped bool // the book that ships is under them

	at        place // where they stand, or what needs them
	unknownAt place // where it says what becomes of unknown models
}

// pricedAt returns where the first limit stands that counts money, else the first lane in which subjects take turns by
// it; ok is false where there is neither.
func (d *Domain) pricedAt() (at place, ok bool) {
	if l := d.costLimit(); l != nil {
		return l.place(), true
	}
	if ln := d.laneWith(func(l *Lane) bool { return l.TurnsBy == Cost }); ln != nil {
		return ln.place(), true
	}
	return place{}, false
}

// costLimit returns the first limit of the domain that counts money, or nil.
func (d *Domain) costLimit() *Limit {
	for _, l := range d.limits {
		if l.Meter == Cost {
			return l
		}
	}
	return nil
}
