package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/server/api"
)

// message is the body of a request.
type message struct {
	Type      string          `json:"type"` // ration.threshold
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"` // ration.v1.WatchEventsResponse
}

// bodyOf returns what is sent of an event: the same each time.
func bodyOf(e *events.Event) ([]byte, error) {
	data, err := protojson.Marshal(api.Event(e))
	if err != nil {
		return nil, err
	}
	return json.Marshal(message{"ration." + string(e.Kind), e.At.Time().UTC(), data}) // without white space
}

// answer is what became of a request.
type answer struct {
	taken bool
	gone  bool // this event is not wanted, now or later
	why   error
	after time.Duration // how long the receiver wants to be left alone
}

const (
	// mostRead bounds what is read of an answer, so that its connection can be used again.
	mostRead = 16 << 10
	// longestAfter bounds what a receiver may ask for.
	longestAfter = time.Hour
)

// post sends an event once.
func (s *Sender) post(ctx context.Context, e *events.Event) answer {
	body, err := bodyOf(e)
	if err != nil {
		return answer{gone: true, why: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL.String(), bytes.NewReader(body))
	if err != nil {
		return answer{why: plain(err)}
	}
	now := time.Now()
	var signatures []string
	for _, secret := range s.opts.Secrets {
		signatures = append(signatures, secret.sign(e.ID, now, body))
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "ration")
	r.Header.Set("Webhook-Id", e.ID)
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("Webhook-Signature", strings.Join(signatures, " "))
	response, err := s.client.Do(r)
	if err != nil {
		return answer{why: plain(err)}
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, mostRead)
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return answer{taken: true}
	case code == http.StatusGone:
		return answer{gone: true, why: fmt.Errorf("it answers %d", code)}
	default:
		return answer{why: fmt.Errorf("it answers %d", code), after: retryAfter(response.Header.Get("Retry-After"), now)}
	}
}

// plain returns an error without the URL, in which there may be a secret.
func plain(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// retryAfter reads Retry-After: seconds, or an instant.
func retryAfter(text string, now time.Time) time.Duration {
	after := time.Duration(0)
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = at.Sub(now)
	}
	return min(max(0, after), longestAfter)
}
