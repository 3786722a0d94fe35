package admin

import (
	"context"
	"errors"
	"maps"
	"slices"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
)

// maxPolicy bounds a policy that is validated, in bytes.
const maxPolicy = 1 << 20

// ValidatePolicy implements rationv1.AdminServiceServer.
func (s *Service) ValidatePolicy(
	_ context.Context, r *rationv1.ValidatePolicyRequest,
) (*rationv1.ValidatePolicyResponse, error) {
	size := 0
	var sources []policy.Source
	for _, name := range slices.Sorted(maps.Keys(r.GetFiles())) {
		text := r.GetFiles()[name]
		if size += len(name) + len(text); size > maxPolicy {
			return nil, wrong("files", "they have more than %d bytes: validate them with `ration check`", maxPolicy)
		}
		sources = append(sources, policy.Source{Name: name, Data: []byte(text)})
	}
	if len(sources) == 0 {
		return nil, wrong("files", "there are none: give the policy as text, by the name of its file")
	}
	opts := s.policies
	opts.Strict = r.GetStrict()
	p, warnings, err := policy.Parse(sources, opts)
	out := &rationv1.ValidatePolicyResponse{Valid: err == nil}
	for _, w := range warnings {
		out.Problems = append(out.Problems, w.String())
	}
	if err == nil {
		out.Meaning = p.Explain()
		return out, nil
	}
	list, ok := errors.AsType[*policy.Errors](err)
	if !ok {
		out.Problems = append(out.Problems, err.Error())
		return out, nil
	}
	for _, problem := range list.Problems {
		out.Problems = append(out.Problems, problem.String())
	}
	return out, nil
}
