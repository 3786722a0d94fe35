package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rationhq/ration/cmd/ration/capacity"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// capacityCmd is ration capacity.
type capacityCmd struct {
	Policy []string `sep:"none" required:"" placeholder:"PATH" help:"File, or directory with all *.yaml and *.yml below it; may be given several times."`
	policyFlags
	Domain string `env:"-" placeholder:"NAME" help:"The domain of the users, where the policy has several."`

	Users  byTier[amount, *amount]       `env:"-" required:"" placeholder:"N" help:"Users that are there in the busy hour: 500, all of the first tier, or free=400,pro=80,premium=20."`
	Tokens byTier[amount, *amount]       `env:"-" placeholder:"N" help:"Tokens of a call, of which a quarter is taken for output."`
	Input  byTier[amount, *amount]       `env:"-" placeholder:"N" help:"Instead of --tokens, with --output: tokens of its prompt."`
	Output byTier[amount, *amount]       `env:"-" placeholder:"N" help:"Tokens that the model writes."`
	Max    byTier[amount, *amount]       `env:"-" name:"max-output" placeholder:"N" help:"For how much output a call asks, which it holds while it is under way. As much as it writes."`
	Model  byTier[modelName, *modelName] `env:"-" placeholder:"NAME" help:"What they call. The model that the attributes of the tier name."`

	Calls    byTier[decimal, *decimal] `env:"-" default:"10" placeholder:"N" help:"Calls of a user in the busy hour. Default 10."`
	Peak     decimal                   `env:"-" default:"3" placeholder:"N" help:"How many times the average of that hour its busiest minute is. Default 3."`
	Hours    decimal                   `env:"-" default:"8" placeholder:"N" help:"How many busy hours a day is worth. Default 8."`
	Duration period                    `env:"-" default:"20s" placeholder:"DURATION" help:"How long a call takes. Default 20s."`

	Format printFormat `env:"-" short:"o" default:"table" placeholder:"FORMAT" help:"table, json or csv. Default table."`
}

// Help implements kong.HelpProvider.
func (capacityCmd) Help() string {
	return strings.TrimSpace(`
Compares the peak of so many users with what all of them share: the limits of the upstream that serves their model, of
the lanes before it, and of the whole domain. Says too what binds first, how many users fit, and what it costs. What is
said by tier has a value for tiers that are not named, if it is to have one: --calls 10,premium=30.

Exit codes: 0 twice as much would fit, 3 it fits and twice as much would not, 4 it does not fit, 1 and 2 as ration check.

Examples:

  ration capacity --policy limits.yaml --users 500 --tokens 1800 --model claude-haiku-4-5

  ration capacity --policy limits.yaml --users free=400,pro=80,premium=20 --input 1500 --output 300,premium=2000
`)
}

// Run implements the command.
func (c *capacityCmd) Run(to streams) error {
	p, _, err := policy.Load(c.Policy, c.options()) // ration check tells the warnings
	if err != nil {
		return err
	}
	domain, err := domainOf(p, c.Domain)
	if err != nil {
		return err
	}
	plan, err := c.plan(domain)
	if err != nil {
		return err
	}
	report, err := plan.Judge()
	if err != nil {
		return err
	}
	if err := c.Format.print(to.out, c.answer(plan, report)); err != nil {
		return err
	}
	if report.Verdict == capacity.Fits {
		return nil
	}
	return verdictError(report.Verdict)
}

// verdictError says how a plan ends that leaves too little room. It was said already.
type verdictError capacity.Verdict

func (e verdictError) Error() string { return verdictWords[e] }

func (e verdictError) code() int {
	if capacity.Verdict(e) == capacity.DoesNotFit {
		return exitDoesNotFit
	}
	return exitTight
}

// plan makes one of the flags.
func (c *capacityCmd) plan(d *policy.Domain) (*capacity.Plan, error) {
	for _, err := range []error{
		c.Users.check("--users", d), c.Tokens.check("--tokens", d), c.Input.check("--input", d), c.Output.check("--output", d),
		c.Max.check("--max-output", d), c.Model.check("--model", d), c.Calls.check("--calls", d),
		between("--peak", c.Peak, 1, 60), between("--hours", c.Hours, 1, 24),
	} {
		if err != nil {
			return nil, err
		}
	}
	switch {
	case c.Tokens.given() == (c.Input.given() || c.Output.given()):
		return nil, misused("say what a call takes, by --tokens, or by --input and --output")
	case c.Duration == 0 || time.Duration(c.Duration) > time.Hour:
		return nil, misused("--duration: a call takes up to an hour, and some time at least")
	}
	plan := &capacity.Plan{
		Domain: d, Peak: c.Peak.Rat, Hours: c.Hours.Rat, Now: time.Now(),
		Duration: limit.Micros(time.Duration(c.Duration).Microseconds()),
	}
	tiers := d.Tiers()
	if len(tiers) == 0 {
		tiers = []policy.Tier{{}}
	}
	for i := range tiers {
		if i > 0 && len(c.Users.named) == 0 {
			break // who is not said to be in a tier is in the first
		}
		users, _ := c.Users.of(tiers[i].Name)
		if users == 0 {
			continue
		}
		g, err := c.group(i, &tiers[i])
		if err != nil {
			return nil, err
		}
		g.Users = int64(users)
		plan.Groups = append(plan.Groups, *g)
	}
	if len(plan.Groups) == 0 {
		return nil, misused("--users: there are none")
	}
	return plan, nil
}

// group says what the users of a tier do.
func (c *capacityCmd) group(tier int, t *policy.Tier) (*capacity.Group, error) {
	g := &capacity.Group{Tier: tier}
	whose := ""
	if t.Name != "" {
		whose = " of " + t.Name
	}
	calls, ok := c.Calls.of(t.Name)
	if !ok {
		return nil, misused("--calls: nothing is said%s", whose)
	}
	g.Calls = calls.Rat
	model, ok := c.Model.of(t.Name)
	if !ok {
		named, _ := t.Attributes["model"].(string)
		if model = modelName(named); model == "" {
			return nil, misused("--model is missing: which one do users%s call?", whose)
		}
	}
	g.Model = string(model)
	if c.Tokens.given() {
		tokens, ok := c.Tokens.of(t.Name)
		if !ok {
			return nil, misused("--tokens: nothing is said%s", whose)
		}
		g.Output = (int64(tokens) + outputOf - 1) / outputOf
		g.Input = int64(tokens) - g.Output
	} else {
		input, hasInput := c.Input.of(t.Name)
		output, hasOutput := c.Output.of(t.Name)
		if !hasInput || !hasOutput {
			return nil, misused("--input and --output: say both%s", whose)
		}
		g.Input, g.Output = int64(input), int64(output)
	}
	most, ok := c.Max.of(t.Name)
	if g.MaxOutput = int64(most); !ok {
		g.MaxOutput = g.Output
	}
	if g.MaxOutput < g.Output {
		return nil, misused("--max-output: a call%s cannot write %d tokens where it asks for %d", whose, g.Output, g.MaxOutput)
	}
	return g, nil
}

// outputOf is of how many tokens one is output, where nobody says: three are read for each that is written, the mix by which
// prices of models are commonly compared.
const outputOf = 4

// between says that a number is out of its range.
func between(flag string, d decimal, least, most int64) error {
	if d.Cmp(decimalOf(least)) < 0 || d.Cmp(decimalOf(most)) > 0 {
		return misused("%s: %v is not in %d to %d", flag, d, least, most)
	}
	return nil
}

// assumed lists what is taken for true, and by which flag to say otherwise.
func (c *capacityCmd) assumed(plan *capacity.Plan) []string {
	says := []string{
		fmt.Sprintf("calls of a user in the busy hour: %s (--calls)", c.Calls.text),
		fmt.Sprintf("its busiest minute has %v times the average (--peak)", c.Peak),
		fmt.Sprintf("a day is worth %v such hours (--hours)", c.Hours),
	}
	if c.Tokens.given() {
		says = append(says, "a quarter of the tokens is output (--input, --output)")
	}
	held := slices.ContainsFunc(plan.Groups, func(g capacity.Group) bool { return g.MaxOutput > g.Output })
	if !held {
		says = append(says, "a call asks for no more output than it writes (--max-output)")
	}
	if held || slices.ContainsFunc(plan.Domain.Limits(), func(l *policy.Limit) bool { return l.Meter == policy.InFlight }) {
		says = append(says, fmt.Sprintf("a call takes %v (--duration)", time.Duration(c.Duration)))
	}
	return says
}
