package main

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// envPrefix begins the variables of ration's own: --grpc-addr is RATION_GRPC_ADDR.
const envPrefix = "RATION"

// environment gives flags their values where the command line does not. The command line wins over
// RATION_…, which wins over the names that envoyproxy/ratelimit reads.
//
// It implements kong.Resolver. Kong itself reads RATION_… before it asks here, but for lists.
type environment struct {
	lookup  func(name string) (string, bool)
	all     func() []string
	origins map[string]string // by flag: what set it, where that was a variable
	failed  error             // what is wrong with an established variable
}

func newEnvironment() *environment {
	return &environment{lookup: os.LookupEnv, all: os.Environ, origins: map[string]string{}}
}

// origin returns what the user wrote to set a flag, for messages.
func (e *environment) origin(flag string) string {
	if name, ok := e.origins[flag]; ok {
		return name
	}
	return "--" + flag
}

// Validate implements kong.Resolver.
func (e *environment) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. It is asked for flags that the command line does not set.
func (e *environment) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if value, ok := e.lookup(name); ok {
			e.origins[flag.Name] = name
			if flag.IsSlice() {
				return separated(value), nil
			}
			return nil, nil
		}
	}
	for _, t := range translations() {
		if t.flag != flag.Name || t.policies && e.saysPolicies(ctx) {
			continue
		}
		vars := variables{lookup: e.lookup}
		value, err := t.value(&vars)
		if err == nil && value != nil {
			err = vars.wrap(try(flag, value))
		}
		if err != nil {
			e.failed = err
			return nil, err
		}
		if value != nil && len(vars.read) > 0 {
			e.origins[flag.Name] = strings.Join(vars.read, ", ")
		}
		return value, nil
	}
	return nil, nil
}

// separated takes a list apart that is one variable. On the command line flags are repeated instead,
// so that values may hold commas there.
func separated(list string) []any {
	values := []any{}
	for value := range strings.SplitSeq(list, ",") {
		if value != "" {
			values = append(values, value)
		}
	}
	return values
}

// saysPolicies reports whether the command line or RATION_POLICY says which policies to read.
func (e *environment) saysPolicies(ctx *kong.Context) bool {
	if _, ok := e.lookup(envPrefix + "_POLICY"); ok {
		return true
	}
	return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool {
		return p.Positional != nil || p.Flag != nil && p.Flag.Name == "policy"
	})
}

// try reads a value as the flag would.
func try(flag *kong.Flag, value any) error {
	target := reflect.New(flag.Target.Type()).Elem()
	return flag.Mapper.Decode(&kong.DecodeContext{
		Value: flag.Value, Scan: kong.Scan().PushTyped(value, kong.FlagValueToken),
	}, target)
}

// unknown returns the variables that are set and look like ration's own, but are not. Kubernetes
// sets some of that kind in a namespace that has a Service named ration.
func (e *environment) unknown(app *kong.Application) []string {
	known := map[string]bool{webhookSecret: true}
	for _, command := range app.Children {
		for _, flag := range command.Flags {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
	}
	var unknown []string
	for _, name := range e.names() {
		if strings.HasPrefix(name, envPrefix+"_") && !known[name] && !ofKubernetesService(name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

func ofKubernetesService(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}

// idle returns the variables that are set and that envoyproxy/ratelimit would heed, but ration does
// not.
func (e *environment) idle() []string {
	var idle []string
	for _, name := range e.names() {
		if slices.ContainsFunc(unsupported(), func(u string) bool {
			family, isFamily := strings.CutSuffix(u, "*")
			return name == u || isFamily && strings.HasPrefix(name, family)
		}) {
			idle = append(idle, name)
		}
	}
	return idle
}

// names returns the names of all variables that are set to something, sorted.
func (e *environment) names() []string {
	var names []string
	for _, v := range e.all() {
		if name, value, _ := strings.Cut(v, "="); name != "" && value != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// variables reads established variables and keeps in mind which of them were there. An empty one
// counts as not set.
type variables struct {
	lookup func(name string) (string, bool)
	read   []string
}

// text returns the value of a variable, or empty.
func (v *variables) text(name string) string {
	value, _ := v.lookup(name)
	if value != "" {
		v.read = append(v.read, name)
	}
	return value
}

// wrap says which variables an error is about.
func (v *variables) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.Join(v.read, ", "), err)
}
