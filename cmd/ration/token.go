package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/rationhq/ration/server/access"
)

// tokenCmd is ration token.
type tokenCmd struct {
	New tokenNewCmd `cmd:"" help:"Make a token: print it, and its entry for the file of --access."`
}

// tokenNewCmd is ration token new.
type tokenNewCmd struct {
	Name     string   `arg:"" help:"Whose token it is."`
	May      []string `env:"-" default:"account" enum:"account,read,admin" placeholder:"RIGHT" help:"What it permits: account, read or admin. Default account."`
	Domains  []string `env:"-" name:"domain" placeholder:"NAME" help:"For which domain; may be given several times. None: all."`
	Subjects []string `env:"-" name:"subject" placeholder:"KEY=VALUE" help:"For which subject, as user=alice or user=team-*; may be given several times. None: all."`
	Expires  string   `env:"-" placeholder:"DATE" help:"From when on it is not taken any more, as 2027-01-01. None: never."`
}

// Run implements the command. The token alone goes to the standard output, so that it can be put where it belongs
// without having been seen; the entry goes to the standard error.
func (c *tokenNewCmd) Run(to streams) error {
	token, hash := access.NewToken()
	entry := "{ name: " + quoted(c.Name)[0] + ", sha256: " + hash + ", may: [" + strings.Join(c.May, ", ") + "]"
	if len(c.Domains) > 0 {
		entry += ", domains: [" + strings.Join(quoted(c.Domains...), ", ") + "]"
	}
	if len(c.Subjects) > 0 {
		entry += ", subjects: [" + strings.Join(quoted(c.Subjects...), ", ") + "]"
	}
	if c.Expires != "" {
		entry += ", expires: " + quoted(c.Expires)[0]
	}
	entry += " }"
	if _, err := access.Parse([]byte("tokens:\n  - " + entry + "\n")); err != nil {
		if p, ok := errors.AsType[*access.Problem](err); ok {
			err = errors.New(p.Text) // the place means nothing to whom there is no file
		}
		return misused("%w", err)
	}
	fmt.Fprintf(to.err, "  - %s\n", entry)
	_, err := fmt.Fprintln(to.out, token)
	return err
}

// quoted returns texts as YAML reads them in any place: as JSON.
func quoted(texts ...string) []string {
	var all []string
	for _, text := range texts {
		line, _ := json.Marshal(text) // a string always can
		all = append(all, string(line))
	}
	return all
}
