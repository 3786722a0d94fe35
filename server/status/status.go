// Package status serves ration.v1.StatusService: what runs here, what it limits, and how it is.
//
// It translates and decides nothing.
package status

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/health"
)

// Service implements rationv1.StatusServiceServer.
type Service struct {
	rationv1.UnimplementedStatusServiceServer
	version *rationv1.GetVersionResponse
	engine  *engine.Engine
	health  *health.State
}

// New returns the service of a server that is of the given version.
func New(version *rationv1.GetVersionResponse, e *engine.Engine, h *health.State) *Service {
	return &Service{version: version, engine: e, health: h}
}

// GetVersion implements rationv1.StatusServiceServer.
func (s *Service) GetVersion(context.Context, *rationv1.GetVersionRequest) (*rationv1.GetVersionResponse, error) {
	return s.version, nil
}

// ListPolicies implements rationv1.StatusServiceServer.
func (s *Service) ListPolicies(_ context.Context, r *rationv1.ListPoliciesRequest) (*rationv1.ListPoliciesResponse, error) {
	response := &rationv1.ListPoliciesResponse{}
	p, since := s.engine.Policy()
	if p == nil {
		return response, nil
	}
	for _, d := range p.Domains() {
		if r.GetDomain() != "" && r.GetDomain() != d.Name() {
			continue
		}
		listed := &rationv1.Policy{
			Domain: d.Name(), Files: files(d), RuleCount: uint32(len(d.Rules())),
			Version: p.Version(), LoadedAt: timestamppb.New(since), LimitCount: uint32(len(d.Limits())),
		}
		for _, t := range d.Tiers() {
			listed.Tiers = append(listed.Tiers, t.Name)
		}
		if !r.GetOmitRules() {
			for _, rule := range d.Rules() {
				listed.Rules = append(listed.Rules, describe(rule))
			}
			for _, l := range d.Limits() {
				listed.Limits = append(listed.Limits, describeLimit(l))
			}
		}
		response.Policies = append(response.Policies, listed)
	}
	if len(response.Policies) == 0 && r.GetDomain() != "" {
		return nil, grpcstatus.Errorf(codes.NotFound, "domain: no policy has the domain %q", r.GetDomain())
	}
	return response, nil
}

// files returns the files that the domain's rules, limits and lanes stand in, in their order.
func files(d *policy.Domain) []string {
	var names []string
	add := func(file string) {
		if !slices.Contains(names, file) {
			names = append(names, file)
		}
	}
	for _, r := range d.Rules() {
		add(r.File)
	}
	for _, l := range d.Limits() {
		add(l.File)
	}
	for _, l := range d.Lanes() {
		add(l.File)
	}
	return names
}

func describeLimit(l *policy.Limit) *rationv1.Limit {
	return &rationv1.Limit{
		Path: l.Path, Name: l.Name, Meter: l.Meter.String(), Algorithm: l.Algorithm().String(), Explanation: l.Explain(),
		Shadow: l.Shadow, Source: &rationv1.SourceLocation{File: l.File, Line: uint32(l.Line)},
	}
}

func describe(r *policy.Rule) *rationv1.Rule {
	return &rationv1.Rule{
		Path: r.Path, Limit: r.Explain(), Shadow: r.Shadow, Quota: r.Quota, Unlimited: r.Unlimited, Name: r.Name,
		Source: &rationv1.SourceLocation{File: r.File, Line: uint32(r.Line)},
	}
}

// GetHealth implements rationv1.StatusServiceServer.
func (s *Service) GetHealth(context.Context, *rationv1.GetHealthRequest) (*rationv1.GetHealthResponse, error) {
	response := &rationv1.GetHealthResponse{Status: statusOf(s.health.Serving())}
	for _, c := range s.health.Components() {
		response.Components = append(response.Components, &rationv1.ComponentHealth{
			Name: c.Name, Status: statusOf(c.Serving), Detail: c.Detail,
		})
	}
	response.Components = append(response.Components, s.degraded()...)
	if f := s.health.LastFailure(); f != nil {
		response.ReloadFailure = &rationv1.ReloadFailure{FailedAt: timestamppb.New(f.At), Errors: f.Errors}
	}
	return response, nil
}

// degraded says since when decisions are made without the store, if they are.
func (s *Service) degraded() []*rationv1.ComponentHealth {
	if s.engine == nil { // the health is told also where nothing can be decided
		return nil
	}
	since, out := s.engine.Outage()
	if !out {
		return nil
	}
	return []*rationv1.ComponentHealth{{
		Name: "decisions", Status: rationv1.ServingStatus_SERVING_STATUS_SERVING,
		Detail: "made without the store since " + since.UTC().Format(time.RFC3339) + ", as on_store_error says",
	}}
}

func statusOf(serving bool) rationv1.ServingStatus {
	if serving {
		return rationv1.ServingStatus_SERVING_STATUS_SERVING
	}
	return rationv1.ServingStatus_SERVING_STATUS_NOT_SERVING
}
