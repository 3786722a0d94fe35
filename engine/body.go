package engine

import (
	"encoding/json"
	"time"

	"github.com/rationhq/ration/policy"
)

// The body of a refusal, in the form that the client understands who is answered.

// problem is the form of RFC 9457, with what clients of model APIs look for beside it.
type problem struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Error   string `json:"error"`
	Message string `json:"message"`
	particulars
}

// anthropicBody is the form of Anthropic's API (platform.claude.com/docs/en/api/errors). Its details are for programs;
// clients show those that they do not know as they are.
type anthropicBody struct {
	Type      string         `json:"type"`
	Error     anthropicError `json:"error"`
	RequestID string         `json:"request_id,omitempty"`
}

type anthropicError struct {
	Type    string  `json:"type"`
	Message string  `json:"message"`
	Details details `json:"details"`
}

// openAIBody is the form of OpenAI's API (platform.openai.com/docs/guides/error-codes), with the same details.
type openAIBody struct {
	Error openAIError `json:"error"`
}

type openAIError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"` // the parameter at fault: none is
	Code    string  `json:"code"`
	Details details `json:"details"`
}

// details are what a refusal says to programs within the form of an API.
type details struct {
	ErrorCode string `json:"error_code"`
	particulars
}

// particulars are what a refusal says to programs in every form.
type particulars struct {
	RetryAfter *int64     `json:"retry_after,omitempty"` // seconds
	ResetAt    *time.Time `json:"reset_at,omitempty"`
	Limit      any        `json:"limit"`     // a number; of money a string, in dollars: "1.00"
	Remaining  any        `json:"remaining"` // likewise
	Name       string     `json:"name,omitempty"`
	Meter      string     `json:"meter,omitempty"`
	Unit       string     `json:"unit,omitempty"` // of money
	Tier       string     `json:"tier,omitempty"`
	UpgradeURL string     `json:"upgrade_url,omitempty"`
	Degraded   string     `json:"degraded,omitempty"` // what on_store_error says, where the store did not decide
}

// ContentType is the media type of the body of a refusal.
func (d *Decision) ContentType() string {
	if d.API == APINone {
		return "application/problem+json"
	}
	return "application/json"
}

// Body returns the body of a refusal as JSON, for a proxy that answers 429 to whatever is refused: in the form of the API
// whose client is answered, else in that of RFC 9457. nil if the request is not refused.
func (d *Decision) Body() []byte {
	if d.Verdict() == Unavailable {
		return d.BodyAs(503, "Service Unavailable")
	}
	return d.BodyAs(429, "Too Many Requests")
}

// BodyAs returns the same body for an answer with the given status, whose reason phrase is the title.
func (d *Decision) BodyAs(status int, title string) []byte {
	if !d.Over {
		return nil
	}
	var form any
	switch d.API {
	case APIAnthropic:
		form = anthropicBody{
			Type: "error", RequestID: d.RequestID,
			Error: anthropicError{Type: d.anthropicType(), Message: d.Message(), Details: d.details()},
		}
	case APIOpenAI:
		kind, code := d.openAITypeAndCode()
		form = openAIBody{openAIError{Message: d.Message(), Type: kind, Code: code, Details: d.details()}}
	default:
		form = problem{
			Type: "about:blank", Title: title, Status: status,
			Detail: d.Message(), Error: d.Verdict().Reason(), Message: d.Message(), particulars: d.particulars(),
		}
	}
	body, err := json.Marshal(form)
	if err != nil {
		return nil // strings and numbers can always be written
	}
	return body
}

// anthropicType is the type of error that Anthropic's API has for the verdict.
func (d *Decision) anthropicType() string {
	switch d.Verdict() {
	case Impossible:
		return "invalid_request_error"
	case Blocked:
		return "permission_error"
	case Unavailable:
		return "api_error"
	default:
		return "rate_limit_error"
	}
}

// openAITypeAndCode are those that OpenAI's API has for the verdict. Where it has no code, our own word stands in its
// place.
func (d *Decision) openAITypeAndCode() (kind, code string) {
	switch v := d.Verdict(); v {
	case Throttled:
		return d.openAIMeter(), "rate_limit_exceeded"
	case Exhausted:
		return "insufficient_quota", "insufficient_quota"
	case Unavailable:
		return "server_error", v.Reason()
	default:
		return "invalid_request_error", v.Reason()
	}
}

// openAIMeter is what OpenAI's API says that a limit counts.
func (d *Decision) openAIMeter() string {
	binding := d.Binding()
	if binding < 0 || d.Statuses[binding].Applied == nil {
		return "requests" // that had no turn, or that a plain rule counts
	}
	switch d.Statuses[binding].Applied.Limit.Meter {
	case policy.Tokens, policy.InputTokens, policy.OutputTokens:
		return "tokens"
	default:
	}
	return "requests"
}

func (d *Decision) details() details {
	return details{ErrorCode: d.Verdict().Reason(), particulars: d.particulars()}
}

func (d *Decision) particulars() particulars {
	p := particulars{Degraded: d.Degraded.String()}
	if wait, ok := d.RetryAfter(); ok {
		seconds, reset := wait.Seconds(), (d.Now + wait).Time()
		p.RetryAfter, p.ResetAt = &seconds, &reset
	}
	binding := d.Binding()
	if binding < 0 {
		return p
	}
	s := &d.Statuses[binding]
	p.Limit, p.Remaining, p.Name = s.Limit.RequestsPerUnit, s.Remaining, s.Limit.Name
	if s.Applied != nil {
		p.Meter = s.Applied.Limit.Meter.String()
	}
	if s.isMoney() {
		p.Limit, p.Remaining, p.Unit = policy.Cost.Decimal(s.Limit.RequestsPerUnit), policy.Cost.Decimal(s.Remaining), policy.Currency
	}
	if s.Applied != nil && d.Verdict() != Unavailable {
		p.Tier, p.UpgradeURL = s.Applied.Limit.TierName(s.Applied.Tier), s.Applied.Quantity.UpgradeURL
	}
	return p
}
