package client

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

const (
	// A batch has at most so many reports, and about so many bytes.
	batchItems = 200
	batchBytes = 512 << 10
	// batchTime bounds one.
	batchTime = 15 * time.Second
)

// deliver sends what lies in the journal, also what other processes have left, until ctx ends.
func (c *Client) deliver(ctx context.Context) {
	tick := time.NewTicker(c.options.JournalEvery)
	defer tick.Stop()
	failing := false // said once for each outage
	for {
		err := c.deliverAll(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			c.options.Log.Warn("reports lie in the journal, and cannot be delivered yet", "journal", c.journal.dir, "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// deliverAll sends what lies in the journal, file by file. Its error is what keeps the server from taking more of it.
func (c *Client) deliverAll(ctx context.Context) error {
	if err := c.journal.takeOver(); err != nil {
		return err
	}
	var (
		why     error
		done    []*journalFile // of which everything was tried
		left    []entry        // of those
		changed bool
		landed  int
	)
	for _, f := range c.journal.due() {
		data, err := f.read()
		if err != nil {
			why = err // it may be another time, and others can be read
			continue
		}
		entries, damaged := readLines(data)
		kept, refused, reached, err := c.send(ctx, entries)
		if err != nil {
			why = err
		}
		for _, line := range damaged {
			refused = append(refused, refusedReport{Damaged: string(line), Message: "the line is damaged"})
		}
		if err := c.reject(refused); err != nil {
			return err // nothing leaves the journal that lies nowhere else
		}
		done, left = append(done, f), append(left, kept...)
		landed += len(entries) - len(kept) - len(refused) + len(damaged)
		changed = changed || len(kept) < len(entries) || len(entries) == 0
		if !reached {
			break
		}
	}
	if !changed && len(done) < 2 {
		return why
	}
	if err := c.journal.replace(done, left); err != nil {
		return err
	}
	if landed > 0 {
		c.options.Log.Info("reports of the journal were delivered", "reports", landed, "left", len(left))
	}
	return why
}

// send sends reports. It returns those that are to be sent again, and the last reason for that; those that never will be
// taken; and whether the server could be reached.
func (c *Client) send(ctx context.Context, entries []entry) (kept []entry, refused []refusedReport, reached bool, why error) {
	for len(entries) > 0 {
		n, bytes := 0, 0
		request := &rationv1.BatchSettleRequest{}
		for n < len(entries) && n < batchItems && (n == 0 || bytes+len(entries[n].line) <= batchBytes) {
			request.Items = append(request.Items, entries[n].item)
			bytes += len(entries[n].line)
			n++
		}
		batch := entries[:n]
		limited, cancel := context.WithTimeout(ctx, batchTime)
		answer, err := c.api.BatchSettle(limited, request)
		cancel()
		if err != nil {
			return append(kept, entries...), refused, false, err
		}
		entries = entries[n:]
		for i, e := range batch {
			if i >= len(answer.GetResults()) {
				kept, why = append(kept, e), errors.New("the server has not answered to every report")
				continue
			}
			failed := answer.GetResults()[i].GetError()
			code := codes.Code(failed.GetCode())
			switch {
			case failed == nil:
			case code == codes.NotFound && e.item.GetRelease() != nil:
				// Nobody knows the reservation any more, so it holds nothing.
			case isRejection(code):
				refused = append(refused, refusedReport{
					Code: code.String(), Reason: failed.GetReason(), Message: failed.GetMessage(), Report: e.report,
				})
			default:
				kept, why = append(kept, e), errors.New(failed.GetMessage())
			}
		}
	}
	return kept, refused, true, why
}

// refusedReport is a line of the file of reports that the server has rejected for good.
type refusedReport struct {
	Code    string          `json:"code,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Message string          `json:"message"`
	Report  json.RawMessage `json:"report,omitempty"`
	Damaged string          `json:"damaged,omitempty"`
}

// reject keeps such reports for people.
func (c *Client) reject(reports []refusedReport) error {
	if len(reports) == 0 {
		return nil
	}
	var lines []byte
	for i := range reports {
		line, err := json.Marshal(&reports[i])
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := c.journal.reject(lines); err != nil {
		return err
	}
	for i := range reports {
		c.options.Log.Error("a report of the journal can never be delivered: it was put aside",
			"file", c.journal.name+rejectedSuffix, "reason", reports[i].Reason, "error", reports[i].Message)
	}
	return nil
}

// keepable returns what of a report may lie on disk: no API keys. A settlement does without its caller then, since the
// server knows it by its reservation; a record cannot.
func keepable(item *rationv1.BatchItem) (*rationv1.BatchItem, bool) {
	switch r := item.GetReport().(type) {
	case *rationv1.BatchItem_Settle:
		if r.Settle.GetCaller().GetApiKey() != "" {
			settle := proto.CloneOf(r.Settle)
			settle.Caller = nil
			return &rationv1.BatchItem{Report: &rationv1.BatchItem_Settle{Settle: settle}}, true
		}
	case *rationv1.BatchItem_Record:
		return item, r.Record.GetCaller().GetApiKey() == ""
	}
	return item, true
}
