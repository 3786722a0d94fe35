package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// appendValue reads one value of the Redis protocol (RESP 2 or 3), whole, and appends its bytes to
// raw as they came.
// https://redis.io/docs/latest/develop/reference/protocol-spec/
func appendValue(raw []byte, from *bufio.Reader) ([]byte, error) {
	line, err := from.ReadBytes('\n')
	if err != nil {
		return raw, err
	}
	raw = append(raw, line...)
	kind, rest := line[0], bytes.TrimSuffix(line[1:], []byte("\r\n"))
	if strings.IndexByte("+-:_,#(", kind) >= 0 {
		return raw, nil
	}
	size, err := strconv.Atoi(string(rest))
	if err != nil {
		return raw, fmt.Errorf("not the Redis protocol: %q", line)
	}
	var values int
	switch kind {
	case '$', '!', '=':
		if size < 0 {
			return raw, nil
		}
		at := len(raw)
		raw = slices.Grow(raw, size+2)[:at+size+2]
		_, err = io.ReadFull(from, raw[at:])
		return raw, err
	case '*', '~', '>':
		values = size // -1 is the null of RESP 2
	case '%':
		values = 2 * size
	case '|':
		values = 2*size + 1 // attributes, and the value that they are of
	default:
		return raw, fmt.Errorf("not the Redis protocol: %q", line)
	}
	for i := 0; i < values && err == nil; i++ {
		raw, err = appendValue(raw, from)
	}
	return raw, err
}

// nameOf returns the name of a command, in capitals: the first string of the array that it is.
func nameOf(command []byte) (string, error) {
	parts := bytes.SplitN(command, []byte("\r\n"), 4)
	if len(parts) < 4 || command[0] != '*' {
		return "", fmt.Errorf("not a command: %q", command)
	}
	return strings.ToUpper(string(parts[2])), nil
}
