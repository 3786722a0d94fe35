package memory

import (
	"slices"
	"strings"
)

// entry is one subject of a domain.
type entry struct{ name, record string }

// names are the subjects of one domain in the order of their names: sorted pieces, each behind the one before. A
// million take little more than what they say, and one more costs no more than moving half a piece.
type names struct{ pieces [][]entry }

// pieceSize is how many entries a piece has at most.
const pieceSize = 256

func byName(e entry, name string) int { return strings.Compare(e.name, name) }

// find returns where the name is, or would be.
func (n *names) find(name string) (piece, at int, found bool) {
	piece, found = slices.BinarySearchFunc(n.pieces, name, func(p []entry, name string) int { return byName(p[0], name) })
	if found {
		return piece, 0, true
	}
	if piece > 0 {
		piece--
	}
	if piece < len(n.pieces) {
		at, found = slices.BinarySearchFunc(n.pieces[piece], name, byName)
	}
	return piece, at, found
}

func (n *names) get(name string) (record string, found bool) {
	piece, at, found := n.find(name)
	if !found {
		return "", false
	}
	return n.pieces[piece][at].record, true
}

func (n *names) put(name, record string) {
	piece, at, found := n.find(name)
	switch {
	case found:
		n.pieces[piece][at].record = record
	case len(n.pieces) == 0:
		n.pieces = [][]entry{{{name, record}}}
	case len(n.pieces[piece]) < pieceSize:
		n.pieces[piece] = slices.Insert(n.pieces[piece], at, entry{name, record})
	case piece == len(n.pieces)-1 && at == pieceSize: // in order, as from a file: full pieces stay full
		n.pieces = append(n.pieces, append(make([]entry, 0, pieceSize), entry{name, record}))
	default:
		full := n.pieces[piece]
		upper := append(make([]entry, 0, pieceSize), full[pieceSize/2:]...)
		clear(full[pieceSize/2:])
		n.pieces[piece] = full[:pieceSize/2]
		n.pieces = slices.Insert(n.pieces, piece+1, upper)
		n.put(name, record)
	}
}

func (n *names) remove(name string) {
	piece, at, found := n.find(name)
	if !found {
		return
	}
	n.pieces[piece] = slices.Delete(n.pieces[piece], at, at+1)
	if len(n.pieces[piece]) == 0 {
		n.pieces = slices.Delete(n.pieces, piece, piece+1)
	}
}

// behind calls each for the entries behind a name, in order, until it returns false.
func (n *names) behind(name string, each func(entry) bool) {
	piece, at, found := n.find(name)
	if found {
		at++
	}
	for ; piece < len(n.pieces); piece, at = piece+1, 0 {
		for _, e := range n.pieces[piece][at:] {
			if !each(e) {
				return
			}
		}
	}
}
