package policy

import (
	"time"

	"github.com/rationhq/ration/price"
)

// The parts of a policy file that ration adds, as they are written.
type (
	tierEntry struct {
		at         place
		name       field[string]
		attributes map[string]any
	}

	subjectEntry struct {
		name           field[string]
		tier, timeZone field[string]
		anchor         field[int]
	}

	// anonymousEntry says what becomes of those who name no subject: by a word, or the entry that tells them apart.
	anonymousEntry struct {
		at       place
		word, by field[string]
	}

	usageEntry struct {
		at   place
		off  bool
		tags []field[string]
		keep Keep
	}

	// answersEntry is what the domain says of refusals.
	answersEntry struct {
		retryUpTo       field[length]
		exhaustedStatus field[string]
	}

	upstreamEntry struct {
		at     place
		name   field[string]
		models []field[string]
		limits []*limitEntry
	}

	laneEntry struct {
		at     place
		broken bool // a value could not be read: it has been reported, and nothing more is worth saying

		name, upstream    field[string]
		drain, places     field[quantity]
		maxWait, aging    field[length]
		total, perSubject field[int64]
		order             field[string]
		weights           []weightEntry
		weightedAt        place // zero where there are none
		turnsBy           field[string]
		onStoreError      field[string]
	}

	weightEntry struct {
		tier   field[string]
		weight field[int64]
	}

	pricesEntry struct {
		at                 place
		book, unknownModel field[string]
		models             []*modelEntry
	}

	// modelEntry is what the prices say of a model, or of all whose names match.
	modelEntry struct {
		name   field[string]
		prices []*priceEntry
	}

	priceEntry struct {
		at                                   place
		broken                               bool // a value could not be read, and has been reported
		from                                 field[time.Time]
		input, output, cacheRead, cacheWrite field[price.Rate]
		maxOutput                            field[int64]
	}

	limitEntry struct {
		at     place
		broken bool // a value could not be read: it has been reported, and nothing more is worth saying

		name, meter, algorithm      field[string]
		starts, timeZone, weekStart field[string]
		anchor                      field[anchor]
		shadow, clamp               field[bool]
		countDenied, countCacheRead field[bool]
		onLapse, onStoreError       field[string]
		counts                      field[string]
		localShare                  field[Share]
		warnAt                      []field[Share]
		base                        quantityEntry
		tiers                       []*quantityEntry
		tiersAt, ceilingsAt         place
		ceilings                    []ceilingEntry // by tier
	}

	// quantityEntry is how much a limit allows: to one tier, or, as its base, to all.
	quantityEntry struct {
		tier                field[string]
		unlimited           bool // the word in place of the mapping
		limit, rate         field[quantity]
		burst, perRequest   field[amount]
		ceiling             field[ceiling]
		message, upgradeURL field[string]
	}

	ceilingEntry struct {
		tier    field[string]
		ceiling field[ceiling]
	}

	// ceiling is how much of a limit's capacity may be in use: a part of it, or an amount.
	ceiling struct {
		share  Share
		amount amount
		part   bool // share counts, not amount
	}

	// anchor is the day on which months or years begin. A month of 0 is not given.
	anchor struct {
		day     int
		subject bool // the subject's own day goes first
		month   int
	}
)
