package memory

import "encoding/binary"

// FormatRecord returns what a file of that format says.
func FormatRecord(version uint32) []byte {
	return appendSum(binary.LittleEndian.AppendUint32(nil, version), 0, string(keyFormat))
}
