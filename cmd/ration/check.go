package main

import (
	"errors"
	"fmt"

	"github.com/rationhq/ration/policy"
)

// checkCmd is ration check.
type checkCmd struct {
	Paths []string `arg:"" name:"path" help:"File, or directory with all *.yaml and *.yml below it."`
	policyFlags

	Attributes string `env:"-" xor:"asked" placeholder:"KEY=VALUE,…" help:"Instead of all rules, show what limits a request with these attributes."`
	Descriptor string `env:"-" xor:"asked" placeholder:"KEY=VALUE,…" help:"Instead of all rules, show what limits a descriptor with these entries, in this order."`
	Domain     string `env:"-" placeholder:"NAME" help:"The domain of that request, where the policy has several."`
}

// Run implements the command.
func (c *checkCmd) Run(to streams) error {
	p, warnings, err := policy.Load(c.Paths, c.options())
	for _, w := range warnings {
		w.Message = "warning: " + w.Message
		fmt.Fprintln(to.out, w)
	}
	if err != nil {
		fmt.Fprintln(to.out, err)
		return reportedError{errors.New("the policy has errors")}
	}
	lines := p.Explain
	if c.Attributes != "" || c.Descriptor != "" {
		asked, err := c.question(p)
		if err != nil {
			return err
		}
		lines = asked.answer
	}
	for _, line := range lines() {
		fmt.Fprintln(to.out, line)
	}
	return nil
}
