package memory

// FormatRecord returns what a file of that format says.
func FormatRecord(version uint32) []byte { return formatRecord(version) }
