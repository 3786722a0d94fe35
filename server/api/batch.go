package api

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
)

const (
	// mostItems is how many reports a batch may bring.
	mostItems = 1000
	// itemsAtOnce is how many of them are under way together: a batch is no reason for others to wait for the store.
	itemsAtOnce = 16
)

// BatchSettle implements rationv1.AccountingServiceServer. Each report is carried out by itself: what one comes to
// changes nothing for the others, and where the call's time ends, those that were not begun say so.
func (s *Service) BatchSettle(ctx context.Context, r *rationv1.BatchSettleRequest) (*rationv1.BatchSettleResponse, error) {
	items := r.GetItems()
	if n := len(items); n > mostItems {
		return nil, failure.Invalid(failure.InvalidField, "items", fmt.Sprintf("%d items, at most %d are allowed", n, mostItems))
	}
	results := make([]*rationv1.BatchResult, len(items))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(itemsAtOnce, len(items)) {
		workers.Go(func() {
			for i := range next {
				results[i] = s.settleItem(ctx, items[i], i)
			}
		})
	}
	for i := range items {
		next <- i
	}
	close(next)
	workers.Wait()
	return &rationv1.BatchSettleResponse{Results: results}, nil
}

func (s *Service) settleItem(ctx context.Context, item *rationv1.BatchItem, i int) *rationv1.BatchResult {
	result, err := s.carryOut(ctx, item, i)
	if err == nil {
		return result
	}
	err = failure.Complete(err)
	return &rationv1.BatchResult{Outcome: &rationv1.BatchResult_Error{Error: &rationv1.BatchError{
		Code: int32(status.Code(err)), Reason: string(failure.ReasonOf(err)), Message: status.Convert(err).Message(),
	}}}
}

func (s *Service) carryOut(ctx context.Context, item *rationv1.BatchItem, i int) (out *rationv1.BatchResult, err error) {
	defer s.guard.Catch(&err)
	if ctx.Err() != nil {
		ended := status.FromContextError(ctx.Err())
		return nil, status.Error(ended.Code(), "the call ended before this report was begun: send it again")
	}
	switch report := item.GetReport().(type) {
	case *rationv1.BatchItem_Settle:
		settled, err := s.Settle(ctx, report.Settle)
		return &rationv1.BatchResult{Outcome: &rationv1.BatchResult_Settled{Settled: settled}}, err
	case *rationv1.BatchItem_Record:
		recorded, err := s.Record(ctx, report.Record)
		return &rationv1.BatchResult{Outcome: &rationv1.BatchResult_Recorded{Recorded: recorded}}, err
	case *rationv1.BatchItem_Release:
		released, err := s.Release(ctx, report.Release)
		return &rationv1.BatchResult{Outcome: &rationv1.BatchResult_Released{Released: released}}, err
	}
	return nil, failure.Of(&engine.InvalidError{Field: fmt.Sprintf("items[%d]", i), Reason: "it reports nothing: say settle, record or release"})
}
