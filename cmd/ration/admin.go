package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/subject"
)

// subjectFlags name a subject.
type subjectFlags struct {
	Subject string `arg:"" help:"The subject: alice, or user=alice where the policy has several kinds."`
	Domain  string `required:"" placeholder:"NAME" help:"Domain of the policy."`
}

func (f *subjectFlags) named() *rationv1.SubjectName {
	key, name, ok := strings.Cut(f.Subject, "=")
	if !ok {
		key, name = "", f.Subject
	}
	return &rationv1.SubjectName{Domain: f.Domain, Key: key, Name: name}
}

// actor says who makes a change. Who shows a token or a certificate is known by it to the server.
func (f *changeFlags) actor() *rationv1.Actor {
	name := f.As
	if name == "" && f.Token == "" && f.Cert == "" {
		name = os.Getenv("USER")
		if you, err := user.Current(); name == "" && err == nil {
			name = you.Username // without USER, as in a container
		}
	}
	return &rationv1.Actor{Name: name, Reason: f.Reason}
}

// directory makes a method of AdminService one that call can use.
func directory[Request, Answer any](
	method func(rationv1.AdminServiceClient, context.Context, Request, ...grpc.CallOption) (Answer, error),
) func(*client.Client) func(context.Context, Request) (Answer, error) {
	return func(c *client.Client) func(context.Context, Request) (Answer, error) {
		stub := rationv1.NewAdminServiceClient(c.Conn())
		return func(ctx context.Context, r Request) (Answer, error) { return method(stub, ctx, r) }
	}
}

// subjectCmd is ration subject.
type subjectCmd struct {
	Get    subjectGetCmd    `cmd:"" help:"Show what is known of a subject."`
	Set    subjectSetCmd    `cmd:"" help:"Set fields of a subject; it is created where there is none."`
	List   subjectListCmd   `cmd:"" help:"List the subjects of a domain."`
	Delete subjectDeleteCmd `cmd:"" help:"Forget what is known of a subject. Its counters stay."`
}

// subjectGetCmd is ration subject get.
type subjectGetCmd struct {
	subjectFlags
	adminFlags
}

// Run implements the command.
func (c *subjectGetCmd) Run(to streams) error {
	request := &rationv1.GetSubjectRequest{Subject: c.named()}
	return call(&c.remoteFlags, c.Admin, to, request, directory(rationv1.AdminServiceClient.GetSubject), showSubject[*rationv1.GetSubjectResponse])
}

// subjectAnswer says what is known of a subject.
func subjectAnswer(s *rationv1.Subject) *answer {
	a := subjectsAnswer([]*rationv1.Subject{s})
	for _, k := range s.GetKeys() {
		a.after = append(a.after, visible(fmt.Sprintf("key %s %s, since %s", k.GetFingerprint(), k.GetLabel(), when(k.GetCreatedAt()))))
	}
	for _, o := range s.GetOverrides() {
		a.after = append(a.after, visible(fmt.Sprintf("override %s: %s, until %s: %s",
			o.GetLimit(), o.GetQuantity(), until(o.GetExpiresAt()), o.GetReason())))
	}
	for _, g := range s.GetGrants() {
		a.after = append(a.after, grantLine(g))
	}
	return a
}

// showSubject shows the answer that is a subject.
func showSubject[Answer interface {
	proto.Message
	GetSubject() *rationv1.Subject
}](r Answer) *answer {
	return subjectAnswer(r.GetSubject()).of(r)
}

func grantLine(g *rationv1.AllowanceGrant) string {
	return visible(fmt.Sprintf("grant %s: %s + %s, until %s: %s",
		g.GetId(), g.GetLimit(), amountOf(g.GetMeter(), g.GetAmount()), until(g.GetExpiresAt()), g.GetReason()))
}

func subjectsAnswer(all []*rationv1.Subject) *answer {
	a := &answer{columns: []string{"subject", "tier", "time_zone", "billing_day", "suspended", "keys", "overrides", "grants", "attributes"}}
	for _, s := range all {
		day := ""
		if s.GetBillingDay() != 0 {
			day = fmt.Sprint(s.GetBillingDay())
		}
		a.row(s.GetKey()+"="+s.GetName(), s.GetTier(), s.GetTimeZone(), day, s.GetSuspended(), len(s.GetKeys()),
			len(s.GetOverrides()), len(s.GetGrants()), pairs(s.GetAttributes()))
	}
	return a
}

// subjectSetCmd is ration subject set.
type subjectSetCmd struct {
	subjectFlags
	Tier       *string     `env:"-" placeholder:"NAME" help:"Its tier; empty: the one of the policy."`
	TimeZone   *string     `env:"-" placeholder:"NAME" help:"Its time zone, as Europe/Berlin; empty: none."`
	BillingDay *int32      `env:"-" placeholder:"DAY" help:"Day of the month on which its billing period begins; 0: none."`
	Suspended  *bool       `env:"-" negatable:"" help:"Nothing is allowed to it any more; --no-suspended: it is again."`
	Attribute  []attribute `env:"-" placeholder:"KEY=VALUE" help:"Added to the attributes of its calls by API key; without a value: taken away."`
	Revision   int64       `env:"-" placeholder:"N" help:"Only if it has this revision still."`
	changeFlags
}

// Run implements the command.
func (c *subjectSetCmd) Run(to streams) error {
	request := &rationv1.PutSubjectRequest{
		Subject: c.named(), Tier: c.Tier, TimeZone: c.TimeZone, BillingDay: c.BillingDay, Suspended: c.Suspended,
		Attributes: attributesOf(c.Attribute), Revision: c.Revision, Actor: c.actor(),
	}
	return call(&c.remoteFlags, c.Admin, to, request, directory(rationv1.AdminServiceClient.PutSubject), showSubject[*rationv1.PutSubjectResponse])
}

// pageFlags are for lists.
type pageFlags struct {
	N    int32  `env:"-" short:"n" default:"100" placeholder:"N" help:"How many, at most 1,000. Default 100."`
	Page string `env:"-" placeholder:"TEXT" help:"Where to go on, as the page before has said."`
}

func (f *pageFlags) more(a *answer, next string) {
	if next != "" {
		a.after = append(a.after, "there are more: --page "+next)
	}
}

// subjectListCmd is ration subject list.
type subjectListCmd struct {
	Domain string `required:"" placeholder:"NAME" help:"Domain of the policy."`
	pageFlags
	adminFlags
}

// Run implements the command.
func (c *subjectListCmd) Run(to streams) error {
	request := &rationv1.ListSubjectsRequest{Domain: c.Domain, PageSize: c.N, PageToken: c.Page}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.ListSubjects), func(r *rationv1.ListSubjectsResponse) *answer {
			a := subjectsAnswer(r.GetSubjects())
			c.more(a, r.GetNextPageToken())
			return a.of(r)
		})
}

// subjectDeleteCmd is ration subject delete.
type subjectDeleteCmd struct {
	subjectFlags
	changeFlags
}

// Run implements the command.
func (c *subjectDeleteCmd) Run(to streams) error {
	request := &rationv1.DeleteSubjectRequest{Subject: c.named(), Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.DeleteSubject), done[*rationv1.DeleteSubjectResponse]("deleted"))
}

// done shows the answer of a change after which there is nothing to show.
func done[Answer proto.Message](what string) func(Answer) *answer {
	return func(r Answer) *answer { return (&answer{before: []string{what}}).of(r) }
}

// keyCmd is ration key.
type keyCmd struct {
	Add    keyAddCmd    `cmd:"" help:"Let an API key stand for a subject. It is read from the standard input; the server is told its hash."`
	Delete keyDeleteCmd `cmd:"" help:"Take an API key away."`
}

// keyAddCmd is ration key add.
type keyAddCmd struct {
	subjectFlags
	Label  string `env:"-" placeholder:"TEXT" help:"What it is for."`
	SHA256 string `env:"-" name:"sha256" placeholder:"HEX" help:"The hash of the key, where the key itself is not at hand: then nothing is read."`
	changeFlags
}

// Run implements the command.
func (c *keyAddCmd) Run(to streams) error {
	hash := c.SHA256
	if hash == "" {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the key from the standard input: %w", err)
		}
		key, err := subject.NewAPIKey(subject.Secret(strings.TrimRight(line, "\r\n")), c.Label, 0)
		if err != nil {
			return misused("the key on the standard input: %w", err)
		}
		hash = key.Hash.Hex()
	}
	request := &rationv1.AddKeyRequest{
		Subject: c.named(), Of: &rationv1.AddKeyRequest_Sha256{Sha256: hash}, Label: c.Label, Actor: c.actor(),
	}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.AddKey), func(r *rationv1.AddKeyResponse) *answer {
			a := &answer{columns: []string{"fingerprint", "label", "created_at"}}
			a.row(r.GetKey().GetFingerprint(), r.GetKey().GetLabel(), when(r.GetKey().GetCreatedAt()))
			return a.of(r)
		})
}

// keyDeleteCmd is ration key delete.
type keyDeleteCmd struct {
	subjectFlags
	Fingerprint string `arg:"" help:"As ration subject get shows it."`
	changeFlags
}

// Run implements the command.
func (c *keyDeleteCmd) Run(to streams) error {
	request := &rationv1.DeleteKeyRequest{Subject: c.named(), Fingerprint: c.Fingerprint, Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.DeleteKey), done[*rationv1.DeleteKeyResponse]("deleted"))
}

// overrideCmd is ration override.
type overrideCmd struct {
	Set    overrideSetCmd    `cmd:"" help:"Set one limit of one subject."`
	Delete overrideDeleteCmd `cmd:"" help:"Give a subject back what its tier has."`
}

// overrideSetCmd is ration override set.
type overrideSetCmd struct {
	subjectFlags
	Limit    string  `arg:"" help:"Path of the limit: llm.user.tokens."`
	Quantity string  `arg:"" help:"What it allows, as policies write it: 200/minute, '$50/month', unlimited."`
	Expires  instant `env:"-" placeholder:"TIME" help:"When it ends. Never."`
	changeFlags
}

// Run implements the command.
func (c *overrideSetCmd) Run(to streams) error {
	request := &rationv1.PutOverrideRequest{
		Subject: c.named(), Actor: c.actor(),
		Override: &rationv1.Override{Limit: c.Limit, Quantity: c.Quantity, ExpiresAt: c.Expires.message()},
	}
	return call(&c.remoteFlags, c.Admin, to, request, directory(rationv1.AdminServiceClient.PutOverride), showSubject[*rationv1.PutOverrideResponse])
}

// overrideDeleteCmd is ration override delete.
type overrideDeleteCmd struct {
	subjectFlags
	Limit string `arg:"" help:"Path of the limit: llm.user.tokens."`
	changeFlags
}

// Run implements the command.
func (c *overrideDeleteCmd) Run(to streams) error {
	request := &rationv1.DeleteOverrideRequest{Subject: c.named(), Limit: c.Limit, Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request, directory(rationv1.AdminServiceClient.DeleteOverride), showSubject[*rationv1.DeleteOverrideResponse])
}

// grantCmd is ration grant.
type grantCmd struct {
	subjectFlags
	Limit   string  `arg:"" help:"Path of the limit: llm.user.tokens."`
	Amount  string  `arg:"" help:"By how much, as policies write amounts: 5_000, '$5'."`
	Expires instant `env:"-" placeholder:"TIME" help:"When it ends. When the limit's period does."`
	ID      string  `env:"-" name:"id" placeholder:"TEXT" help:"Names the grant, so that it is made once however often it is sent. One is made."`
	changeFlags
}

// Run implements the command.
func (c *grantCmd) Run(to streams) error {
	request := &rationv1.GrantRequest{
		Subject: c.named(), Limit: c.Limit, Amount: c.Amount, ExpiresAt: c.Expires.message(),
		Id: cmp.Or(c.ID, client.NewKey()), Actor: c.actor(),
	}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.Grant), func(r *rationv1.GrantResponse) *answer {
			g := r.GetGrant()
			a := &answer{columns: []string{"grant", "limit", "amount", "expires_at", "reason"}}
			a.row(g.GetId(), g.GetLimit(), amountOf(g.GetMeter(), g.GetAmount()), when(g.GetExpiresAt()), g.GetReason())
			return a.of(r)
		})
}

// revokeCmd is ration revoke.
type revokeCmd struct {
	subjectFlags
	ID string `arg:"" help:"The grant."`
	changeFlags
}

// Run implements the command.
func (c *revokeCmd) Run(to streams) error {
	request := &rationv1.RevokeRequest{Subject: c.named(), Id: c.ID, Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.Revoke), done[*rationv1.RevokeResponse]("revoked"))
}

// adjustCmd is ration adjust.
type adjustCmd struct {
	callerFlags
	Limit  string `env:"-" required:"" placeholder:"PATH" help:"Path of the limit: llm.user.tokens."`
	Amount string `env:"-" required:"" placeholder:"AMOUNT" help:"What is added, as policies write amounts: 5_000, '$5'; with - before it (--amount=-5): what is taken away."`
	changeFlags
}

// Run implements the command.
func (c *adjustCmd) Run(to streams) error {
	request := &rationv1.AdjustUsageRequest{Caller: c.caller(), Limit: c.Limit, Quantity: c.Amount, Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.AdjustUsage), func(r *rationv1.AdjustUsageResponse) *answer {
			return limitsAnswer([]*rationv1.LimitStatus{r.GetStatus()}).of(r)
		})
}

// resetCmd is ration reset.
type resetCmd struct {
	callerFlags
	Limit string `env:"-" placeholder:"PATH" help:"Path of the limit. All that apply."`
	changeFlags
}

// Run implements the command.
func (c *resetCmd) Run(to streams) error {
	request := &rationv1.ResetUsageRequest{Caller: c.caller(), Limit: c.Limit, Actor: c.actor()}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.ResetUsage), func(r *rationv1.ResetUsageResponse) *answer {
			return limitsAnswer(r.GetLimits()).of(r)
		})
}

// changesCmd is ration changes.
type changesCmd struct {
	Subject string `arg:"" optional:"" help:"Only of this subject, by its name."`
	Domain  string `required:"" placeholder:"NAME" help:"Domain of the policy."`
	pageFlags
	adminFlags
}

// Run implements the command.
func (c *changesCmd) Run(to streams) error {
	request := &rationv1.ListChangesRequest{Domain: c.Domain, Name: c.Subject, PageSize: c.N, PageToken: c.Page}
	return call(&c.remoteFlags, c.Admin, to, request,
		directory(rationv1.AdminServiceClient.ListChanges), func(r *rationv1.ListChangesResponse) *answer {
			a := &answer{columns: []string{"time", "who", "known_by", "why", "action", "subject", "before", "after", "omitted"}}
			for _, ch := range r.GetChanges() {
				omitted := ""
				if n := ch.GetOmitted(); n > 0 {
					omitted = fmt.Sprint(n)
				}
				a.row(when(ch.GetTime()), ch.GetActor().GetName(), ch.GetCredential(), ch.GetActor().GetReason(), ch.GetAction(), ch.GetName(),
					ch.GetBefore(), ch.GetAfter(), omitted)
			}
			c.more(a, r.GetNextPageToken())
			return a.of(r)
		})
}
