package memory

import (
	"context"
	"slices"
	"strings"

	"github.com/rationhq/ration/subject"
)

// List implements subject.Directory.
func (d *Directory) List(ctx context.Context, domain, after string, n int) ([]subject.Subject, error) {
	if err := subject.ValidatePage(n, ""); err != nil {
		return nil, err
	}
	entries, err := d.page(ctx, domain, after, n)
	if err != nil {
		return nil, err
	}
	page := make([]subject.Subject, len(entries))
	for i, e := range entries {
		if page[i], err = subject.ReadRecord(subject.Ref{Domain: domain, Name: e.name}, e.record); err != nil {
			return nil, err
		}
	}
	return page, nil
}

func (d *Directory) page(ctx context.Context, domain, after string, n int) (page []entry, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, errClosed
	}
	if all := d.domains[domain]; all != nil {
		all.behind(after, func(e entry) bool {
			page = append(page, e)
			return len(page) < n
		})
	}
	return page, nil
}

// Audit implements subject.Directory.
func (d *Directory) Audit(ctx context.Context, of subject.Ref, before string, n int) ([]subject.Row, error) {
	if err := subject.ValidateAudit(of, n, before); err != nil {
		return nil, err
	}
	all, err := d.rows(ctx, of, before)
	if err != nil {
		return nil, err
	}
	page := []subject.Row{}
	for i := 0; i < len(all) && len(page) < n; i++ {
		row, err := subject.ReadRow(all[i])
		if err != nil {
			return nil, err
		}
		if row.Concerns(of) {
			page = append(page, row)
		}
	}
	return page, nil
}

// rows returns the rows of the shards in question below an ID, the newest first.
func (d *Directory) rows(ctx context.Context, of subject.Ref, before string) (all []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, errClosed
	}
	shards := d.shards[:]
	if of.Name != "" {
		shards = shards[of.Shard():][:1]
	}
	for i := range shards {
		for _, row := range shards[i].rows {
			if before == "" || row < before {
				all = append(all, row)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(b, a) })
	return all, nil
}
