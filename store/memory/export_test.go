package memory

// FormatRecord returns what a file of that format says.
func FormatRecord(version uint32) []byte { return formatRecord(version) }

// Watchers returns how many wait for notices.
func (s *Store) Watchers() int {
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	return len(s.outbox.watchers)
}
