package policy

import (
	"fmt"
	"strings"
	"time"
)

// explainPrices adds a line that says where the prices of the domain are from.
func (d *Domain) explainPrices(lines []string) []string {
	p := &d.prices
	if p.book == nil {
		return lines
	}
	var from []string
	if p.own > 0 {
		from = append(from, fmt.Sprintf("those of %s here", count(uint64(p.own), "model")))
	}
	if p.shipped {
		from = append(from, "the book of "+p.book.Date().Format(time.DateOnly))
	}
	if len(from) == 0 {
		from = []string{"none"}
	}
	return append(lines, fmt.Sprintf("  prices: %s; %s", strings.Join(from, ", then "), p.unknown.means("a model without one")))
}

// means says what becomes of calls to models, where money is limited.
func (u UnknownModel) means(models string) string {
	switch u {
	case UnknownModelAssumeMax:
		return models + " costs as much as the dearest"
	case UnknownModelAllow:
		return models + " costs nothing"
	default:
		return models + " is refused where money is limited"
	}
}
