package events

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
)

// ErrPosition says that a text is the id of no event.
var ErrPosition = errors.New("it is the id of no event")

// position is where somebody goes on who has watched before: behind an event of a threshold, whose ID it is, or behind one
// that a process has published itself.
type position struct {
	threshold string // empty: the other fields say it

	at      limit.Micros
	process string
	number  uint64 // of the event among those of the process
}

// String returns the position as the ID of an event that a process has published.
func (p *position) String() string { return fmt.Sprintf("%x.%s.%d", int64(p.at), p.process, p.number) }

// readPosition reads the ID of an event of either sort.
func readPosition(id string) (p position, err error) {
	const longest = 128
	if len(id) > longest {
		return p, ErrPosition
	}
	at, rest, own := strings.Cut(id, ".")
	if !own {
		if _, err := hex.DecodeString(id); err != nil || id == "" {
			return p, ErrPosition
		}
		return position{threshold: id}, nil
	}
	process, number, _ := strings.Cut(rest, ".")
	micros, err := strconv.ParseInt(at, 16, 64)
	if err != nil || micros < 0 || process == "" {
		return p, ErrPosition
	}
	if p.number, err = strconv.ParseUint(number, 10, 64); err != nil {
		return p, ErrPosition
	}
	p.at, p.process = limit.Micros(micros), process
	return p, nil
}
