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
	for _, line := range p.Explain() {
		fmt.Fprintln(to.out, line)
	}
	return nil
}
