package policy

// Meter is what a limit counts.
type Meter uint8

// The meters.
const (
	Requests     Meter = iota
	InputTokens        // uncached input and cache writes; with CountCacheRead, cache reads too
	OutputTokens       // what the model wrote
	Tokens             // all classes together: uncached input, cache read, cache write, output
	Cost               // money: no limit of this version counts it
	InFlight           // places taken at the same time: `concurrency`
	meters
)

var meterNames = [meters]string{
	Requests: "requests", InputTokens: "input_tokens", OutputTokens: "output_tokens", Tokens: "tokens",
	Cost: "cost", InFlight: "concurrency",
}

// unitNames say one unit of each meter.
var unitNames = [meters]string{
	Requests: "request", InputTokens: "input token", OutputTokens: "output token", Tokens: "token",
	Cost: "dollar", InFlight: "request",
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

// StoreError says what a limit answers when the store cannot be asked.
type StoreError uint8

// What a limit answers without the store.
const (
	StoreErrorUnset StoreError = iota // the default of the meter
	StoreErrorAllow                   // admit
	StoreErrorDeny                    // refuse
	StoreErrorFail                    // an error: `error`
	StoreErrorLocal                   // this process decides by itself
	storeErrors
)

var storeErrorNames = [storeErrors]string{
	StoreErrorUnset: "", StoreErrorAllow: "allow", StoreErrorDeny: "deny", StoreErrorFail: "error", StoreErrorLocal: "local",
}

// String returns the name that policies use: "deny"; empty where none was given.
func (s StoreError) String() string { return storeErrorNames[s] }

// named returns the place of name among names.
func named[T ~uint8](names []string, name string) (T, bool) {
	for i, n := range names {
		if n == name && n != "" {
			return T(i), true
		}
	}
	return 0, false
}
