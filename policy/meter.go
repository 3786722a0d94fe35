package policy

// Meter is what a limit counts.
type Meter uint8

// The meters.
const (
	Requests     Meter = iota
	InputTokens        // uncached input and cache writes; with CountCacheRead, cache reads too
	OutputTokens       // what the model wrote
	Tokens             // all classes together: uncached input, cache read, cache write, output
	Cost               // money, in nano-dollars
	InFlight           // places taken at the same time: `concurrency`
	meters
)

var meterNames = [meters]string{
	Requests: "requests", InputTokens: "input_tokens", OutputTokens: "output_tokens", Tokens: "tokens",
	Cost: "cost", InFlight: "concurrency",
}

// Currency is what money is counted in, for machines.
const Currency = "usd"

// unitNames say one unit of each meter, or what there is of it where nobody says units.
var unitNames = [meters]string{
	Requests: "request", InputTokens: "input token", OutputTokens: "output token", Tokens: "token",
	Cost: "money", InFlight: "request",
}

// String returns the name that policies use: "input_tokens".
func (m Meter) String() string { return meterNames[m] }

// ParseMeter returns the meter of that name.
func ParseMeter(name string) (Meter, bool) { return named[Meter](meterNames[:], name) }

// Lapse says what stays charged of a hold that nobody settles in time.
type Lapse uint8

// What stays charged on a lapse.
const (
	LapseInput   Lapse = iota // the larger of what was reported so far and the estimate of the input
	LapseAll                  // the whole hold
	LapseNothing              // nothing
	lapses
)

var lapseNames = [lapses]string{LapseInput: "input", LapseAll: "all", LapseNothing: "nothing"}

// String returns the name that policies use: "input".
func (l Lapse) String() string { return lapseNames[l] }

// StoreError says what a limit answers when the store cannot decide. They are in order of strictness:
// of several limits the largest counts. Local is stricter than allow, which refuses nobody, and milder
// than an error, which admits nobody by itself.
type StoreError uint8

// What a limit answers without the store.
const (
	StoreErrorNone  StoreError = iota // no limit's answer: of a decision that the store has made
	StoreErrorAllow                   // admit
	StoreErrorLocal                   // this process decides by itself, within [Limit.LocalShare]
	StoreErrorFail                    // an error: `error`
	StoreErrorDeny                    // refuse
	storeErrors
)

var storeErrorNames = [storeErrors]string{
	StoreErrorNone: "", StoreErrorAllow: "allow", StoreErrorLocal: "local", StoreErrorFail: "error", StoreErrorDeny: "deny",
}

// String returns the name that policies use: "deny"; empty for none.
func (s StoreError) String() string { return storeErrorNames[s] }

// storeError returns what a limit of that meter answers where its policy does not say: money is not
// spent unseen, everything else is rather used too much than not at all.
func (m Meter) storeError() StoreError {
	if m == Cost {
		return StoreErrorDeny
	}
	return StoreErrorAllow
}

// named returns the place of name among names.
func named[T ~uint8](names []string, name string) (T, bool) {
	for i, n := range names {
		if n == name && n != "" {
			return T(i), true
		}
	}
	return 0, false
}
