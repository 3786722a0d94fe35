package policy

// Failure says what stays charged of a call whose upstream has failed, so that nobody knows of anything that was used.
type Failure uint8

// What stays charged of such a call, beside the request itself.
const (
	FailureNothing Failure = iota // providers do not charge for errors
	FailureLapse                  // what each limit's OnLapse says, as of a call of which nothing is known
	failures
)

var failureNames = [failures]string{FailureNothing: "nothing", FailureLapse: "lapse"}

// String returns the name that policies use: "nothing".
func (f Failure) String() string { return failureNames[f] }

// OnFailure returns what stays charged of calls whose upstream has failed.
func (d *Domain) OnFailure() Failure { return d.onFailure }

func (c *compiler) onFailure(dr *draft) {
	said := dr.onFailure
	if !said.given {
		return
	}
	var known bool
	if dr.domain.onFailure, known = named[Failure](failureNames[:], said.value); !known {
		c.unknownWord(said, "on_failure", failureNames[:])
	}
}

// explainFailure adds a line that says what failed calls cost, where that is more than nothing.
func (d *Domain) explainFailure(lines []string) []string {
	if d.onFailure == FailureNothing {
		return lines
	}
	return append(lines, "  calls whose upstream fails stay charged as those that nobody settles")
}
