package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// plainMix asks about the first n descriptors of bench/policy/plain/policy.yaml.
func plainMix(n int) loadgen.Mix {
	descriptors, _ := loadgen.DefaultDescriptors(n) // there is no mix without any, so an n without them is noticed
	return loadgen.Mix{Domain: plainDomain, Descriptors: descriptors}
}

// algorithmMix asks about a descriptor with that many limits of the algorithm. A place of a concurrency limit is only
// taken by a request that also gives it back, so there each request is two calls.
func algorithmMix(algorithm string, count int) loadgen.Mix {
	entry := fmt.Sprintf("%s_%d={key}", algorithm, count)
	mix := loadgen.Mix{Domain: limitsDomain, Descriptors: []string{entry}}
	if algorithm == "concurrency" {
		mix.Descriptors = []string{entry + ",ration.request={id}"}
		mix.Then = []string{entry + ",ration.phase=done,ration.request={id}"}
	}
	return mix
}

// reservationMix reserves a request, a place, and estimated input and output tokens, under three limits of the caller
// and three of the upstream, and reports what was really used.
func reservationMix() loadgen.Mix {
	const who = "caller={key},ration.model=bench-model,ration.request={id}"
	return loadgen.Mix{
		Domain: limitsDomain,
		Descriptors: []string{
			who,
			who + ",ration.meter=input_tokens,ration.phase=hold hits=400",
			who + ",ration.meter=output_tokens,ration.phase=hold hits=1000",
		},
		Then: []string{
			who + ",ration.meter=input_tokens,ration.phase=record hits=380",
			who + ",ration.meter=output_tokens,ration.phase=record hits=250",
		},
	}
}

// subjectMix is a request under three limits that remember it for at least an hour.
func subjectMix(subjects int) loadgen.Mix {
	return loadgen.Mix{Domain: limitsDomain, Descriptors: []string{"subject={key}"}, Keys: subjects}
}

// accountMix reserves and settles the call of a model under that many limits.
func accountMix(domain string, limits int) loadgen.Mix {
	return loadgen.Mix{Domain: domain, Account: &loadgen.Account{
		Attributes: []string{fmt.Sprintf("account_%d={key}", limits)}, Model: "bench-model",
		Estimate: loadgen.Tokens{Input: 400, Output: 1000}, Used: loadgen.Tokens{Input: 380, Output: 250},
	}}
}

// laneMix reserves and settles the call of a model, or acquires and settles it in a lane.
func laneMix(lane string) loadgen.Mix {
	return loadgen.Mix{Domain: lanesDomain, Account: &loadgen.Account{
		Attributes: []string{"user={key}"}, Model: "bench-model", Lane: lane,
		Estimate: loadgen.Tokens{Input: 400, Output: 1000}, Used: loadgen.Tokens{Input: 380, Output: 250},
	}}
}

const (
	fewRules  = 10
	manyRules = 10_000
)

func rulesDomain(count int) string { return "rules-" + strconv.Itoa(count) }

// rulesMix asks about each of the rules of a policy by rulesPolicy.
func rulesMix(count int) loadgen.Mix {
	return loadgen.Mix{
		Domain: rulesDomain(count), Descriptors: []string{fmt.Sprintf("user={key},path=/api/{key%%%d}/items", count)},
	}
}

// rulesPolicy returns a policy with that many rules on one level, each a wildcard with a limit of its own.
func rulesPolicy(count int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\nanonymous: unlimited\ndescriptors:\n  - key: user\n    subject: true\n    descriptors:\n", rulesDomain(count))
	for i := range count {
		fmt.Fprintf(&b, "      - { key: path, value: /api/%d/*, limits: [ { name: requests, meter: requests, "+
			"algorithm: sliding_window, limit: %d/hour } ] }\n", i, highLimit)
	}
	return b.String()
}
