package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Answer is what a provider has answered to a call of a model.
type Answer struct {
	// Domain of the policy. Required.
	Domain string
	// Upstream is its name in the policy; empty: the one that serves Model.
	Upstream string
	// Model that was called.
	Model string
	// Status and Header are those of the provider's answer.
	Status int
	Header http.Header
	// At is when it came; the zero time: now.
	At time.Time
}

// Followed is what has become of the limits of an upstream.
type Followed struct {
	// Upstream is its name; empty where the answer said nothing of limits, and nobody was asked.
	Upstream string
	// Refused says that the provider has not served the call, for its limits, and Wait for how long it wants nobody to come.
	Refused bool
	Wait    time.Duration
	// Limits are those that follow the provider, as they stand now.
	Limits []Limit
	// Ignored is what of the answer does not count.
	Ignored []Ignored
}

// Ignored is a header, or what it says for one limit, that does not count.
type Ignored struct {
	Header string // in lower case; empty: the refusal itself
	Limit  string // path of the limit; empty: none in particular
	Reason string
}

// ReportUpstream tells what a provider has answered, so that the limits of its upstream follow: for all callers, on all
// replicas. It is for every answer: one that says nothing of the provider's limits is not sent; and of others only what
// they say of them.
func (c *Client) ReportUpstream(ctx context.Context, a Answer) (Followed, error) {
	if a.At.IsZero() {
		a.At = time.Now() // before what is waited for the server
	}
	request := &rationv1.ReportUpstreamRequest{
		Domain: a.Domain, Upstream: a.Upstream, Model: a.Model, Status: int32(a.Status), ObservedAt: timestamppb.New(a.At),
		Headers: map[string]string{},
	}
	tells := a.Status == http.StatusTooManyRequests
	for name, values := range a.Header {
		name = strings.ToLower(name)
		ofLimits := strings.Contains(name, "ratelimit") || strings.HasPrefix(name, "retry-after")
		if ofLimits || name == "date" {
			request.Headers[name] = strings.Join(values, ", ")
		}
		tells = tells || ofLimits
	}
	if !tells {
		return Followed{}, nil
	}
	answer, err := c.api.ReportUpstream(ctx, request)
	if err != nil {
		return Followed{}, fmt.Errorf("report upstream: %w", err)
	}
	out := Followed{
		Upstream: answer.GetUpstream(), Refused: answer.GetRefused(), Wait: answer.GetWait().AsDuration(), Limits: limitsOf(answer.GetLimits()),
	}
	for _, i := range answer.GetIgnored() {
		out.Ignored = append(out.Ignored, Ignored{Header: i.GetHeader(), Limit: i.GetLimit(), Reason: i.GetReason()})
	}
	return out, nil
}
