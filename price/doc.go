// Package price knows what tokens cost: money and prices as integers, the book of prices, the cost of
// a usage, and what a call will use at most before it has been made.
//
// It must not know policies, stores, or who asks: whoever does hands it a usage and a book, and gets
// money. Of the project it imports limit alone, for the largest amount.
//
// Read money.go for the units, rates.go for the one multiplication, book.go for how a price is found,
// and estimate.go for usage that is still to come. Nothing here uses floating point numbers.
package price
