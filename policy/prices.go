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
// is nil where the domain has neither `prices` nor a limit of cost.
func (d *Domain) Prices() *price.Book { return d.prices.book }

// UnknownModel returns what becomes of a call to a model that is not in [Domain.Prices].
func (d *Domain) UnknownModel() UnknownModel { return d.prices.unknown }

// prices are those of a domain. The zero prices are none.
type prices struct {
	book    *price.Book
	unknown UnknownModel
	own     int  // how many models, or patterns, the domain has prices for itself
	shipped bool // the book that ships is under them

	at        place // where they stand, or the limit that needs them
	unknownAt place // where it says what becomes of unknown models
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
