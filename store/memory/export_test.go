package memory

// FormatRecord returns what a file of that format says.
func FormatRecord(version uint32) []byte { return formatRecord(version) }

// Watchers returns how many wait for notices.
func (s *Store) Watchers() int {
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	return len(s.outbox.watchers)
}

// LongestWalk returns how many rows of an owner are looked at one by one, at most, to find one of them.
func (s *Store) LongestWalk() int {
	longest := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		defer s.shards[i].mu.Unlock()
		for _, t := range s.shards[i].usage.tables {
			for by, first := range t.ofOwners {
				walk := 0
				for r := first; r != nil; r = r.next {
					walk++
				}
				if len(t.many[by]) == walk {
					walk = few
				}
				longest = max(longest, walk)
			}
		}
	}
	return longest
}
