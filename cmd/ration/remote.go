package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/client"
	"github.com/rationhq/ration/cmd/ration/certs"
)

// Commands that ask a running server are thin: they put flags into a message, and print the answer.

// remoteCommands asks a running server: ration reserve and so on. Misuse of them ends with exitFailed, so that
// exitRefused says only that.
type remoteCommands struct {
	Reserve  reserveCmd  `cmd:"" help:"Admit a call of a model, and hold what it will use."`
	Progress progressCmd `cmd:"" help:"Say what a reserved call has used so far, and renew it."`
	Settle   settleCmd   `cmd:"" help:"Say what a reserved call has used in the end."`
	Release  releaseCmd  `cmd:"" help:"Give back what a call holds that was not made."`
	Record   recordCmd   `cmd:"" help:"Count usage that nobody has reserved."`
	Usage    usageCmd    `cmd:"" help:"Show how somebody's limits stand, or what was used in a time."`
	Top      topCmd      `cmd:"" help:"Show who has used most."`
	Watch    watchCmd    `cmd:"" help:"Show what happens: thresholds that are crossed, refusals, outages, new policies."`
	Explain  explainCmd  `cmd:"" help:"Show which limits apply to a call, why, and which binds."`
	Subject  subjectCmd  `cmd:"" help:"Show or change what is known of a subject: its tier and so on."`
	Key      keyCmd      `cmd:"" help:"Let an API key stand for a subject, or no more."`
	Override overrideCmd `cmd:"" help:"Set one limit of one subject, instead of what its tier has."`
	Grant    grantCmd    `cmd:"" help:"Raise one limit of one subject by an amount, for a time."`
	Revoke   revokeCmd   `cmd:"" help:"Take a grant back."`
	Adjust   adjustCmd   `cmd:"" help:"Correct what counts as used of a limit."`
	Reset    resetCmd    `cmd:"" help:"Let nothing count as used of a limit any more."`
	Changes  changesCmd  `cmd:"" help:"List what was changed, by whom, and why."`
}

// asksServer reports whether a command line is for one of them.
func asksServer(args []string) bool {
	commands := reflect.TypeFor[remoteCommands]()
	for i := range commands.NumField() {
		if len(args) > 0 && args[0] == strings.ToLower(commands.Field(i).Name) {
			return true
		}
	}
	return false
}

// reachFlags say how to reach a server.
type reachFlags struct {
	Token string  `placeholder:"TEXT" help:"Shown to the server. Better in RATION_TOKEN, which ps does not tell."`
	TLS   bool    `name:"tls" help:"Speak TLS to the server."`
	CA    string  `name:"ca" placeholder:"FILE" help:"PEM file of authorities to trust beside the system's; implies --tls."`
	Cert  string  `name:"cert" placeholder:"FILE" help:"PEM file of the certificate to show to the server; implies --tls."`
	Key   string  `name:"cert-key" placeholder:"FILE" help:"PEM file of its key."`
	Wait  *period `env:"-" placeholder:"DURATION" help:"How long to try. Default 5s."`
}

// defaultWait is how long a server is tried to be reached.
const defaultWait = 5 * time.Second

// wait returns how long to try.
func (f *reachFlags) wait() time.Duration {
	if f.Wait == nil {
		return defaultWait
	}
	return time.Duration(*f.Wait)
}

// remoteFlags say so, and how to print what the server says.
type remoteFlags struct {
	reachFlags
	Format printFormat `env:"-" short:"o" default:"table" placeholder:"FORMAT" help:"table, json (all that the server says) or csv. Default table."`
}

// serverFlags reach AccountingService and UsageService.
type serverFlags struct {
	Server string `default:"localhost:8081" placeholder:"ADDR" help:"The server's gRPC address; https://… is --tls. Default localhost:8081."`
	remoteFlags
}

// adminFlags reach AdminService.
type adminFlags struct {
	Admin string `default:"localhost:8082" placeholder:"ADDR" help:"The server's address for changes; https://… is --tls. Default localhost:8082."`
	remoteFlags
}

// changeFlags are those of what changes something.
type changeFlags struct {
	adminFlags
	Reason string `env:"-" required:"" placeholder:"TEXT" help:"Why: kept with the change."`
	As     string `env:"-" placeholder:"NAME" help:"Who makes the change. Whose the token or the certificate is; without either, you."`
}

// printFormat is how answers are printed.
type printFormat string

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *printFormat) UnmarshalText(text []byte) error {
	*f = printFormat(strings.ToLower(string(text)))
	if !slices.Contains([]printFormat{"table", "json", "csv"}, *f) {
		return fmt.Errorf("%q is no format: use table, json or csv", text)
	}
	return nil
}

// client returns a client of the server at addr.
func (f *reachFlags) client(addr string) (c *client.Client, err error) {
	options := client.Options{Token: f.Token}
	addr, secure := strings.CutPrefix(addr, "https://")
	if secure || f.TLS || f.CA != "" || f.Cert != "" {
		if options.TLS, err = (certs.Client{CA: f.CA, Cert: f.Cert, Key: f.Key}).Config(); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
	}
	return client.New(addr, options)
}

// connect returns a client of the server at addr, and the time that there is for a call.
func (f *remoteFlags) connect(addr string) (c *client.Client, ctx context.Context, end func(), err error) {
	if c, err = f.client(addr); err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, f.wait())
	return c, ctx, func() { cancel(); stop(); _ = c.Close() }, nil
}

// answer is what a server has said, or was found, for every format.
type answer struct {
	message any      // a proto.Message of a server
	before  []string // lines above the table
	columns []string // a table leaves out those that are empty
	rows    [][]string
	after   []string
}

func (a *answer) row(cells ...any) {
	var row []string
	for _, c := range cells {
		row = append(row, visible(fmt.Sprint(c)))
	}
	a.rows = append(a.rows, row)
}

// visible returns a text of somebody else's so that it shows what it is: with a tab, a line end or what turns the direction
// of writing in it, one could make a line of a table look like another.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func (f printFormat) print(to io.Writer, a *answer) error {
	switch f {
	case "json":
		text, err := json.Marshal(a.message)
		if message, said := a.message.(proto.Message); said {
			text, err = protojson.Marshal(message)
		}
		if err != nil {
			return err
		}
		// Protobuf's own white space is not always the same.
		indented, err := json.MarshalIndent(json.RawMessage(text), "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(to, "%s\n", indented)
		return err
	case "csv":
		w := csv.NewWriter(to)
		return errors.Join(w.Write(a.columns), w.WriteAll(a.rows))
	}
	for _, line := range a.before {
		fmt.Fprintln(to, line)
	}
	if len(a.rows) > 0 {
		w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		for i, row := range append([][]string{a.columns}, a.rows...) {
			var cells []string
			for column, cell := range row {
				if slices.ContainsFunc(a.rows, func(r []string) bool { return r[column] != "" }) {
					cells = append(cells, cell)
				}
			}
			line := strings.TrimRight(strings.Join(cells, "\t"), "\t")
			if i == 0 {
				line = strings.ToUpper(strings.ReplaceAll(line, "_", " "))
			}
			fmt.Fprintln(w, line)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, line := range a.after {
		fmt.Fprintln(to, line)
	}
	return nil
}

// call asks a server and prints what it says.
func call[Request, Answer any](
	f *remoteFlags, addr string, to streams, request Request,
	method func(*client.Client) func(context.Context, Request) (Answer, error), show func(Answer) *answer,
) error {
	c, ctx, end, err := f.connect(addr)
	if err != nil {
		return err
	}
	defer end()
	said, err := method(c)(ctx, request)
	if err != nil {
		return fmt.Errorf("%s: %s", addr, status.Convert(err).Message())
	}
	return f.Format.print(to.out, show(said))
}

// attributes are KEY=VALUE of who calls.
type attributes map[string]string

// attribute is KEY=VALUE.
type attribute string

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *attribute) UnmarshalText(text []byte) error {
	if key, _, ok := strings.Cut(string(text), "="); !ok || key == "" {
		return fmt.Errorf("%q is no KEY=VALUE, as in user=alice", text)
	}
	*a = attribute(text)
	return nil
}

// once says which attribute is given twice: of two values the one that does not count would be lost in silence, and
// somebody else be charged than was meant.
func once(all []attribute) error {
	values := map[string]string{}
	for _, a := range all {
		key, value, _ := strings.Cut(string(a), "=")
		if before, given := values[key]; given {
			return fmt.Errorf("%q is %q and %q: give it once", key, before, value)
		}
		values[key] = value
	}
	return nil
}

func attributesOf(all []attribute) attributes {
	out := attributes{}
	for _, a := range all {
		key, value, _ := strings.Cut(string(a), "=")
		out[key] = value
	}
	return out
}

// instant is a point in time: a day, a time, or so long ago. Zero: not said.
type instant time.Time

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *instant) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			*i = instant(t)
			return nil
		}
	}
	return fmt.Errorf("%q is no time: write it as 2026-01-31 or 2026-01-31T09:00:00Z", text)
}

func (i instant) message() *timestamppb.Timestamp {
	if time.Time(i).IsZero() {
		return nil
	}
	return timestamppb.New(time.Time(i))
}

// roughly returns a wait for people: in whole seconds, rounded up, where it is long.
func roughly(d time.Duration) time.Duration {
	const long = 10 * time.Second
	if d < long {
		return d.Round(time.Millisecond)
	}
	return (d + time.Second - 1).Truncate(time.Second)
}

// when returns a time as tables have it; empty where there is none.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
