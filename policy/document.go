package policy

// A policy file as it is written, before its rules are judged.
type (
	document struct {
		domain      field[string]
		descriptors []*descriptor

		tiers     []*tierEntry
		tiersAt   place
		trustTier field[bool]
		limits    []*limitEntry
		upstreams []*upstreamEntry
		lanes     []*laneEntry
		subjects  []*subjectEntry
		prices    *pricesEntry // nil: there are none
		anonymous *anonymousEntry
		usage     *usageEntry
		answers   answersEntry
		onFailure field[string]
	}

	descriptor struct {
		at            place
		key, value    field[string]
		rateLimit     *rateLimit
		descriptors   []*descriptor
		shadow, quota field[bool]
		share         field[bool]
		metadata      field[map[string]any]
		subject       field[bool]
		limits        []*limitEntry
	}

	rateLimit struct {
		at              place
		requestsPerUnit field[uint32]
		unit, name      field[string]
		unlimited       field[bool]
		replaces        []replaced
	}

	replaced struct {
		at   place
		name field[string]
	}

	// field is the value of a field and where it stands. The zero field is absent, or null.
	field[T any] struct {
		value T
		at    place
		given bool
	}
)
