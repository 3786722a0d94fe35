package client

import (
	"context"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Retry says how calls are repeated that end with UNAVAILABLE or DEADLINE_EXCEEDED: their outcome is unknown, and sent
// again with the same key they count once. Calls that could count twice are not repeated.
type Retry struct {
	// First is about how long is waited before the first repeat, and twice that before each other; 0: 100 ms.
	First time.Duration
	// Most bounds that; 0: 2 s. What the server asks for (google.rpc.RetryInfo) is waited in any case.
	Most time.Duration
	// Attempt bounds each attempt, so that a server that is silent is asked again; 0: 3 s. Beside it a call that waits for its
	// turn in a lane has the time that it waits; so it has beside Patience.
	Attempt time.Duration
	// Patience bounds all of them together where the context has no deadline; 0: 10 s.
	Patience time.Duration
}

func (r Retry) orDefaults() Retry {
	return Retry{
		First: orElse(r.First, 100*time.Millisecond), Most: orElse(r.Most, 2*time.Second),
		Attempt: orElse(r.Attempt, 3*time.Second), Patience: orElse(r.Patience, 10*time.Second),
	}
}

// onceKey is of a context whose calls are made once.
type onceKey struct{}

// unary makes one call of several attempts. It is a grpc.UnaryClientInterceptor.
func (r Retry) unary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	waits := waits(request)
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Patience+waits)
		defer cancel()
	}
	if once, _ := ctx.Value(onceKey{}).(bool); once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Attempt)
		defer cancel()
		return invoke(ctx, method, request, reply, conn, options...)
	}
	if !repeatable(method, request) {
		return invoke(ctx, method, request, reply, conn, options...)
	}
	var before error // of the attempt before
	for pause := r.First; ; pause = min(2*pause, r.Most) {
		attempt, cancel := context.WithTimeout(ctx, r.Attempt+waits)
		err := invoke(attempt, method, request, reply, conn, options...)
		cancel()
		code := status.Code(err)
		switch {
		case code == codes.DeadlineExceeded && ctx.Err() != nil && before != nil:
			return before // it tells more than that the time is up
		case code != codes.Unavailable && code != codes.DeadlineExceeded || ctx.Err() != nil:
			return err
		}
		before = err
		if !rest(ctx, pause, err) {
			return err
		}
	}
}

// longestWait is the longest that a call waits in a lane.
const longestWait = time.Hour

// waits returns how long a call waits for its turn at most, beside the time that any takes.
func waits(request any) time.Duration {
	r, ok := request.(*rationv1.ReserveRequest)
	if !ok || r.GetWait() == nil {
		return 0
	}
	if longest := r.GetWait().GetLongest(); longest != nil {
		return min(longestWait, max(0, longest.AsDuration()))
	}
	return longestWait
}

// rest waits before what has ended with an error is tried again, about as long as pause, or as the server asks for. It
// reports whether that is worth while before ctx ends.
func rest(ctx context.Context, pause time.Duration, err error) bool {
	// Not all callers come back at once.
	wait := max(pause/2+rand.N(pause), retryInfo(err)) //nolint:gosec // it spreads callers, and hides nothing
	if until, bounded := ctx.Deadline(); bounded && time.Until(until) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// repeatable says that a call changes nothing the second time.
func repeatable(method string, request any) bool {
	switch r := request.(type) {
	case *rationv1.ReserveRequest:
		return r.GetIdempotencyKey() != ""
	case *rationv1.RecordRequest:
		return r.GetIdempotencyKey() != ""
	case *rationv1.GrantRequest:
		return r.GetId() != ""
	case *rationv1.BatchSettleRequest:
		return false // each item has an outcome of its own: whoever sends them knows which to send again
	case *rationv1.ProgressRequest, *rationv1.SettleRequest, *rationv1.ReleaseRequest, *rationv1.ReportUpstreamRequest:
		return true
	}
	name := path.Base(method)
	for _, reads := range []string{"Check", "Get", "List", "Query", "Top", "Explain", "Validate"} {
		if strings.HasPrefix(name, reads) {
			return true
		}
	}
	return false
}

// retryInfo returns how long the server asks to wait; 0 where it does not.
func retryInfo(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
