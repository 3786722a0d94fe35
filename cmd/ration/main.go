// Command ration serves rate limit decisions, checks policies, plans for users, shows prices, makes tokens, asks a running server, and says
// what it is.
//
// It turns flags and environment into the parts of the project and puts them together; what a limit
// is, how a policy reads or what a transport answers it does not know. Read serve.go first; remote.go begins what asks a server.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the policy, an address, or the end of serving
	exitUsage  = 2 // a flag or a variable that can never work, but for commands that ask a server: 1

	exitRefused = 2 // ration reserve: the call may not be made

	exitTight      = 3 // ration capacity: it fits, and twice as much would not
	exitDoesNotFit = 4 // ration capacity
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// cli is the grammar of the command line.
type cli struct {
	Serve    serveCmd    `cmd:"" help:"Serve rate limit decisions to Envoy and others. With no flags at all: an example policy, counters in memory."`
	Check    checkCmd    `cmd:"" help:"Check policies: print what is wrong, or what each rule means."`
	Capacity capacityCmd `cmd:"" help:"Say whether what users share will be enough for so many of them, and what they will cost."`
	Prices   pricesCmd   `cmd:"" help:"Show what models cost, or turn a public list of prices into those of a policy."`
	Token    tokenCmd    `cmd:"" help:"Make tokens, by which callers of ration.v1 are known (ration serve --access)."`
	Version  versionCmd  `cmd:"" help:"Print version, commit and date of this build."`

	remoteCommands
}

// streams are where commands print to.
type streams struct{ out, err io.Writer }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	err := execute(args, streams{stdout, stderr})
	if err == nil {
		return exitOK
	}
	var verdict verdictError
	switch {
	case errors.As(err, new(reportedError)):
		return exitFailed
	case errors.As(err, new(refusedError)):
		return exitRefused
	case errors.As(err, &verdict):
		return verdict.code()
	}
	// The problems of a policy are a line each.
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "ration: %s\n", line)
	}
	if errors.As(err, new(usageError)) && !asksServer(args) {
		return exitUsage
	}
	return exitFailed
}

func execute(args []string, to streams) error {
	var grammar cli
	helped := false
	env := newEnvironment()
	parser, err := newParser(&grammar, env, to, func(int) { helped = true })
	if err != nil {
		return err
	}
	ctx, err := parse(parser, env, args)
	switch {
	case helped:
		return nil
	case err != nil:
		return err
	}
	return ctx.Run()
}

// newParser returns a parser that fills grammar. It calls exit where it has printed help.
func newParser(grammar *cli, env *environment, to streams, exit func(int)) (*kong.Kong, error) {
	parser, err := kong.New(grammar,
		kong.Name("ration"),
		kong.Description(description),
		kong.Writers(to.out, to.err),
		kong.Exit(exit),
		kong.DefaultEnvars(envPrefix),
		kong.Resolvers(env),
		kong.ValueFormatter(formatHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ExplicitGroups(groups()),
		helpVars(),
		kong.Bind(to, env),
	)
	if err != nil {
		return nil, fmt.Errorf("the command line's own grammar: %w", err)
	}
	return parser, nil
}

// parse parses the command line and the environment. Its errors are all the user's.
func parse(parser *kong.Kong, env *environment, args []string) (*kong.Context, error) {
	ctx, err := parser.Parse(args)
	switch {
	case env.failed != nil:
		return nil, usageError{env.failed}
	case err != nil:
		return nil, usageError{plainer(err)}
	}
	return ctx, nil
}

// usageError is a flag or a variable that can never work.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// misused says what is wrong with a flag or a variable.
func misused(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// reportedError is a failure of which everything was said already.
type reportedError struct{ error }

// plainer words an error of the command line's parser without its mark-up.
func plainer(err error) error {
	text := err.Error()
	if at, ok := strings.CutSuffix(text, ")"); ok {
		// --flag=PLACEHOLDER: reason (from envar NAME="value")
		if rest, envar, ok := strings.Cut(at, " (from envar "); ok {
			name, _, _ := strings.Cut(envar, "=")
			_, reason, _ := strings.Cut(rest, ": ")
			return fmt.Errorf("%s: %s", name, reason)
		}
	}
	if flag, reason, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(flag, "--") {
		flag, _, _ = strings.Cut(flag, "=")
		return fmt.Errorf("%s: %s", flag, reason)
	}
	return err
}
