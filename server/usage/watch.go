package usage

import (
	"context"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/failure"
)

// AfterHeader is the metadata, and over HTTP the header, with the `after` by which a watcher goes on that has seen no event.
const AfterHeader = "ration-after"

// WatchEvents implements rationv1.UsageServiceServer.
func (s *Service) WatchEvents(r *rationv1.WatchEventsRequest, stream rationv1.UsageService_WatchEventsServer) error {
	subject, err := subjectOf(r.GetSubject())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	w, err := s.engine.Watch(ctx, &engine.EventQuery{
		Domain: r.GetDomain(), Subject: subject, Kinds: r.GetKinds(), After: r.GetAfter(),
	})
	if err != nil {
		return ended(ctx, err)
	}
	defer w.Close()
	if err := stream.SendHeader(metadata.Pairs(AfterHeader, w.Position())); err != nil {
		return err
	}
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		if err := stream.Send(api.Event(e)); err != nil {
			return err
		}
	}
}

// ended says why a watcher hears no more. That it has left, or its time is over, is no failure of the store.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return failure.Of(err)
}
