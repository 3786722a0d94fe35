// Command demo shows what ration is for: Envoy, ration and a fake model run here, three users in three tiers call the
// model through Envoy, and a terminal shows who is served, who is refused and why, and what each has spent.
//
// It is a stranger to ration: it starts the three programs with files that are shipped, makes HTTP calls to Envoy, and
// asks ration over its API for everything that it shows. How a limit works it must not know. Read demo.go first;
// policy.yaml has the limits, traffic.go what the users do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

const description = `Three users of a model behind Envoy: who is served, who is refused, and what each has spent.

Run it by "make demo", which builds and installs what it starts.`

// program is the command line. Files are named as from the root of the repository.
type program struct {
	For time.Duration `default:"0s" placeholder:"TIME" help:"How long, as 1m. Default: until Ctrl-C."`

	Policy    string `default:"examples/demo/policy.yaml" placeholder:"FILE" help:"The limits. ration reads them again when they change."`
	Bootstrap string `default:"envoy/llm-reserve.yaml" placeholder:"FILE" help:"What Envoy does. Its ports are replaced by free ones."`
	Ration    string `default:"bin/ration" placeholder:"PROGRAM" help:"ration."`
	FakeLLM   string `name:"fakellm" default:"bin/fakellm" placeholder:"PROGRAM" help:"What stands for the model: examples/fakellm."`
	Envoy     string `env:"RATION_ENVOY" placeholder:"PROGRAM" help:"Envoy 1.40. Default: the one that make installs in .cache/venv."`

	Picture string `hidden:"" placeholder:"FILE" help:"Draw the picture of the README, and nothing else."`
}

func main() {
	var cli program
	parser := kong.Must(&cli, kong.Name("demo"), kong.Description(description))
	_, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)

	if cli.Picture != "" {
		where, state := still()
		err = os.WriteFile(cli.Picture, []byte(picture(screen(where, state, columns, rows))), 0o644)
	} else {
		ctx, stop := untilSignal()
		defer stop()
		err = cli.run(ctx, viewOn(os.Stdout))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// untilSignal ends when somebody wants the demo to end: Ctrl-C, a kill, or a terminal that is closed.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}
