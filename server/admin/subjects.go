package admin

import (
	"cmp"
	"context"
	"encoding/base64"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/subject"
)

// PutSubject implements rationv1.AdminServiceServer.
func (s *Service) PutSubject(ctx context.Context, r *rationv1.PutSubjectRequest) (*rationv1.PutSubjectResponse, error) {
	if err := s.checkPut(r); err != nil {
		return nil, err
	}
	got, err := s.change(ctx, r.GetSubject(), r.GetActor(), "put_subject", func(to *subject.Subject) error {
		if r.GetRevision() != 0 && to.Revision != uint64(r.GetRevision()) {
			// ABORTED is what AIP-154 has for it: read again, and decide again.
			return failure.New(codes.Aborted, failure.ChangedMeanwhile,
				"the subject has another revision by now: read it again, and change that")
		}
		put(to, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.PutSubjectResponse{Subject: got}, nil
}

// checkPut reports what the policy in force has against it.
func (s *Service) checkPut(r *rationv1.PutSubjectRequest) error {
	if r.GetRevision() < 0 {
		return wrong("revision", "it is negative: give that of the subject as it was read, or 0")
	}
	if r.GetTier() == "" {
		return nil
	}
	of, err := ref(r.GetSubject())
	if err != nil {
		return err
	}
	domain, err := s.engine.Domain(of.Domain)
	if err != nil {
		return failure.Of(err)
	}
	if _, ok := domain.TierNamed(r.GetTier()); ok {
		return nil
	}
	var names []string
	for _, tier := range domain.Tiers() {
		names = append(names, tier.Name)
	}
	if len(names) == 0 {
		return wrong("tier", "the policy has no tiers in %.100q", of.Domain)
	}
	return wrong("tier", "the policy has no tier %.100q; it has %s", r.GetTier(), strings.Join(names, ", "))
}

func put(to *subject.Subject, r *rationv1.PutSubjectRequest) {
	if r.Tier != nil {
		to.Tier = r.GetTier()
	}
	if r.TimeZone != nil {
		to.Zone = r.GetTimeZone()
	}
	if r.BillingDay != nil {
		to.Anchor = int(r.GetBillingDay())
	}
	if r.Suspended != nil {
		to.Suspended = r.GetSuspended()
	}
	for key, value := range r.GetAttributes() {
		switch {
		case value == "":
			delete(to.Attributes, key)
		case to.Attributes == nil:
			to.Attributes = map[string]string{key: value}
		default:
			to.Attributes[key] = value
		}
	}
}

// GetSubject implements rationv1.AdminServiceServer.
func (s *Service) GetSubject(ctx context.Context, r *rationv1.GetSubjectRequest) (*rationv1.GetSubjectResponse, error) {
	of, err := ref(r.GetSubject())
	if err != nil {
		return nil, err
	}
	got, found, err := s.directory.Find(ctx, of)
	switch {
	case err != nil:
		return nil, failure.Of(err)
	case !found:
		return nil, unknown(of)
	}
	return &rationv1.GetSubjectResponse{Subject: s.subjectMessage(&got, now())}, nil
}

// ListSubjects implements rationv1.AdminServiceServer.
func (s *Service) ListSubjects(ctx context.Context, r *rationv1.ListSubjectsRequest) (*rationv1.ListSubjectsResponse, error) {
	if r.GetDomain() == "" {
		return nil, wrong("domain", "it is empty: name the domain of a policy")
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil {
		return nil, noToken()
	}
	page, err := s.directory.List(ctx, r.GetDomain(), string(after), size)
	if err != nil {
		return nil, failure.Of(err)
	}
	out := &rationv1.ListSubjectsResponse{}
	for i := range page {
		out.Subjects = append(out.Subjects, s.subjectMessage(&page[i], now()))
	}
	if len(page) == size {
		out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(page[size-1].Name))
	}
	return out, nil
}

func pageSize(asked int32) (int, error) {
	if asked < 0 || asked > subject.MaxPage {
		return 0, wrong("page_size", "%d is out of range: it is 1 to %d, or 0 for 100", asked, subject.MaxPage)
	}
	return cmp.Or(int(asked), 100), nil
}

func noToken() error { return wrong("page_token", "it is not the next_page_token of a page") }

// DeleteSubject implements rationv1.AdminServiceServer.
func (s *Service) DeleteSubject(ctx context.Context, r *rationv1.DeleteSubjectRequest) (*rationv1.DeleteSubjectResponse, error) {
	of, who, err := intent(ctx, r.GetSubject(), r.GetActor(), "delete_subject")
	if err != nil {
		return nil, err
	}
	found, err := s.directory.Delete(ctx, of, who)
	switch {
	case err != nil:
		return nil, failure.Of(err)
	case !found:
		return nil, unknown(of)
	}
	return &rationv1.DeleteSubjectResponse{}, nil
}

// AddKey implements rationv1.AdminServiceServer.
func (s *Service) AddKey(ctx context.Context, r *rationv1.AddKeyRequest) (*rationv1.AddKeyResponse, error) {
	added, err := apiKey(r)
	if err != nil {
		return nil, failure.Of(err)
	}
	_, err = s.change(ctx, r.GetSubject(), r.GetActor(), "add_key", func(to *subject.Subject) error {
		for i := range to.APIKeys {
			if to.APIKeys[i].Hash == added.Hash { // it was sent before
				added = to.APIKeys[i]
				return nil
			}
		}
		to.APIKeys = append(to.APIKeys, added)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.AddKeyResponse{Key: keyMessage(&added)}, nil
}

func apiKey(r *rationv1.AddKeyRequest) (subject.APIKey, error) {
	switch r.GetOf().(type) {
	case *rationv1.AddKeyRequest_Key:
		return subject.NewAPIKey(subject.Secret(r.GetKey()), r.GetLabel(), now())
	case *rationv1.AddKeyRequest_Sha256:
		hash, err := subject.ParseKeyHash(r.GetSha256())
		return subject.APIKey{Hash: hash, Label: r.GetLabel(), Created: now()}, err
	}
	return subject.APIKey{}, &subject.InvalidError{Field: "api_key", Why: "it is missing: give the key, or its sha256"}
}

// DeleteKey implements rationv1.AdminServiceServer.
func (s *Service) DeleteKey(ctx context.Context, r *rationv1.DeleteKeyRequest) (*rationv1.DeleteKeyResponse, error) {
	if r.GetFingerprint() == "" {
		return nil, wrong("fingerprint", "it is empty: give that of one of the subject's keys")
	}
	_, err := s.changeKnown(ctx, r.GetSubject(), r.GetActor(), "delete_key", func(to *subject.Subject) error {
		before := len(to.APIKeys)
		to.APIKeys = slices.DeleteFunc(to.APIKeys, func(k subject.APIKey) bool { return k.Hash.Fingerprint() == r.GetFingerprint() })
		switch before - len(to.APIKeys) {
		case 0:
			return failure.New(codes.NotFound, failure.UnknownSubject, "the subject has no API key of that fingerprint")
		case 1:
			return nil
		}
		return failure.New(codes.FailedPrecondition, failure.Other,
			"several keys of the subject have that fingerprint: delete the subject, and make it again")
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.DeleteKeyResponse{}, nil
}

// subjectMessage tells of a subject what counts now. Of API keys it holds no hash.
func (s *Service) subjectMessage(of *subject.Subject, now limit.Micros) *rationv1.Subject {
	current := of.Clone()
	current.DropExpired(now)
	out := &rationv1.Subject{
		Domain: of.Domain, Key: of.Key, Name: of.Name, Tier: of.Tier, TimeZone: of.Zone, BillingDay: int32(of.Anchor),
		Suspended: of.Suspended, Attributes: of.Attributes, Revision: int64(min(of.Revision, math.MaxInt64)),
	}
	for i := range current.APIKeys {
		out.Keys = append(out.Keys, keyMessage(&current.APIKeys[i]))
	}
	for i := range current.Overrides {
		o := &current.Overrides[i]
		out.Overrides = append(out.Overrides, &rationv1.Override{
			Limit: o.Limit, Quantity: o.Quantity, ExpiresAt: instant(o.Expires), Reason: o.Reason,
		})
	}
	for i := range current.Grants {
		out.Grants = append(out.Grants, s.grantMessage(of.Domain, &current.Grants[i]))
	}
	return out
}

func keyMessage(k *subject.APIKey) *rationv1.Key {
	return &rationv1.Key{Fingerprint: k.Hash.Fingerprint(), Label: k.Label, CreatedAt: instant(k.Created)}
}

func (s *Service) grantMessage(domain string, g *subject.Grant) *rationv1.AllowanceGrant {
	out := &rationv1.AllowanceGrant{Id: g.ID, Limit: g.Limit, Amount: g.Amount, ExpiresAt: instant(g.Expires), Reason: g.Reason}
	if d, err := s.engine.Domain(domain); err == nil {
		if l, _ := d.LimitNamed(g.Limit); l != nil {
			out.Meter = api.Meter(l.Meter)
		}
	}
	return out
}

// instant is absent of what never comes.
func instant(m limit.Micros) *timestamppb.Timestamp {
	if m == 0 {
		return nil
	}
	return timestamppb.New(m.Time())
}
