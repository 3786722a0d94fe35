package admin

import (
	"context"
	"encoding/json"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/subject"
)

// ListChanges implements rationv1.AdminServiceServer.
func (s *Service) ListChanges(ctx context.Context, r *rationv1.ListChangesRequest) (*rationv1.ListChangesResponse, error) {
	if r.GetDomain() == "" {
		return nil, wrong("domain", "it is empty: name the domain of a policy")
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	if r.GetPageToken() != "" && subject.ValidatePage(1, r.GetPageToken()) != nil {
		return nil, noToken()
	}
	rows, err := s.directory.Audit(ctx, subject.Ref{Domain: r.GetDomain(), Name: r.GetName()}, r.GetPageToken(), size)
	if err != nil {
		return nil, failure.Of(err)
	}
	out := &rationv1.ListChangesResponse{}
	for i := range rows {
		row := &rows[i]
		c := &rationv1.Change{
			Time: instant(row.At), Actor: &rationv1.Actor{Name: row.Actor, Reason: row.Reason},
			Credential: row.Credential, Action: row.Action, Name: row.Subject.Name, Omitted: int32(row.Omitted),
		}
		if c.Before, err = fields(row.Changes, func(f *subject.FieldChange) json.RawMessage { return f.Old }); err != nil {
			return nil, failure.Of(err)
		}
		if c.After, err = fields(row.Changes, func(f *subject.FieldChange) json.RawMessage { return f.New }); err != nil {
			return nil, failure.Of(err)
		}
		out.Changes = append(out.Changes, c)
	}
	if len(rows) == size {
		out.NextPageToken = rows[size-1].ID
	}
	return out, nil
}

// fields returns one side of a change as a JSON object; empty where there is nothing on it.
func fields(changes []subject.FieldChange, side func(*subject.FieldChange) json.RawMessage) (string, error) {
	object := map[string]json.RawMessage{}
	for i := range changes {
		if value := side(&changes[i]); len(value) > 0 {
			object[changes[i].Field] = value
		}
	}
	if len(object) == 0 {
		return "", nil
	}
	text, err := json.Marshal(object)
	return string(text), err
}
