package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"
)

func (g *groupRun) askGRPC(ctx context.Context, s *Step) (any, error) {
	req, err := s.Request.Proto()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := g.process.limits.ShouldRateLimit(ctx, req)
	if err != nil {
		return g.callError(err), nil
	}
	return responseTree(r)
}

// callError is the answer of a failed call; when the call took the process down, that is the answer.
func (g *groupRun) callError(err error) any {
	if status.Code(err) == codes.Unavailable && g.process.exitsWithin(time.Second) {
		return map[string]any{"process": processExits}
	}
	return errorTree(err)
}

func (g *groupRun) callRPC(ctx context.Context, method string) any {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := g.process.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		return g.callError(err)
	}
	return map[string]any{}
}

func (g *groupRun) askHealth(ctx context.Context, service string) any {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := healthv1.NewHealthClient(g.process.conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		return errorTree(err)
	}
	return r.GetStatus().String()
}

// askJSON sends a ShouldRateLimit request over /json and holds the answer against the one that was recorded over
// gRPC.
func (g *groupRun) askJSON(ctx context.Context, s *Step, want any) ([]string, error) {
	w, isTree := want.(map[string]any)
	if !isTree {
		return []string{"no answer is recorded"}, nil
	}
	req, err := s.Request.Proto()
	if err != nil {
		return nil, err
	}
	body, err := protojson.Marshal(req)
	if err != nil {
		return nil, err
	}
	when := &span{from: time.Now()}
	sent, err := send(ctx, http.MethodPost, g.process.httpAddr, "/json", "application/json", body)
	if err != nil {
		return nil, err
	}
	when.to = time.Now()

	wantHTTP, isError := httpOf(w, g.Target.Column)
	gotHTTP := map[string]any{
		"status": float64(sent.status), "content_type": sent.contentType,
	}
	if _, fixed := wantHTTP["body"]; fixed {
		gotHTTP["body"] = errorBody(sent, g.Target.Column)
	}
	if diff := compare(wantHTTP, gotHTTP, nil); len(diff) > 0 {
		return append(diff, fmt.Sprintf("body: %q", sent.body)), nil
	}
	if isError {
		return nil, nil
	}
	got, problem := decodeJSONAnswer(sent.body)
	if problem != "" {
		return []string{problem}, nil
	}
	return compare(want, got, when), nil
}

// httpAnswer is what counts of an HTTP response.
type httpAnswer struct {
	status      int
	contentType string
	body        []byte
}

func send(ctx context.Context, method, addr, path, contentType string, body []byte) (httpAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return httpAnswer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return httpAnswer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return httpAnswer{resp.StatusCode, resp.Header.Get("Content-Type"), text}, err
}

func (g *groupRun) askHTTP(ctx context.Context, h *HTTPRequest, want any) (any, error) {
	addr := g.process.httpAddr
	if h.Port == "debug" {
		addr = g.process.debugAddr
	}
	method := h.Method
	if method == "" {
		method = http.MethodGet
	}
	sent, err := send(ctx, method, addr, h.Path, h.ContentType, []byte(h.Body))
	if errors.Is(err, io.EOF) {
		return map[string]any{"connection": "closed"}, nil
	}
	if err != nil {
		return nil, err
	}
	got := map[string]any{"status": float64(sent.status)}
	if h.Compare == CompareStatus {
		return got, nil
	}
	got["content_type"] = sent.contentType
	switch h.Compare {
	case CompareLines:
		got["body"] = sortedLines(string(sent.body))
	case ComparePaths:
		delete(got, "content_type")
		got["body"] = linePaths(string(sent.body), want)
	default:
		got["body"] = errorBody(sent, g.Target.Column)
		var body any
		isJSON := strings.HasPrefix(sent.contentType, "application/json")
		if isJSON && json.Unmarshal(sent.body, &body) == nil {
			got["body"] = body
		}
	}
	return got, nil
}

// errorBody returns the body, of ration's 400s without the line behind the established one: it says why, which no case
// has to repeat, but it has to be there.
func errorBody(sent httpAnswer, c Column) string {
	established, why, _ := strings.Cut(string(sent.body), "\n")
	if c == Ration && sent.status == http.StatusBadRequest && strings.TrimSpace(why) != "" {
		return established + "\n"
	}
	if c == Ration && sent.status == http.StatusBadRequest {
		return "(ration does not say why) " + string(sent.body)
	}
	return string(sent.body)
}

func sortedLines(text string) []any {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, probePrefix) })
	slices.Sort(lines)
	return list(lines)
}

// linePaths lists what stands before the colons. Once an answer is recorded, what it does not name is left out.
func linePaths(text string, want any) []any {
	answer, _ := want.(map[string]any)
	wanted, _ := answer["body"].([]any)
	paths := []any{}
	for line := range strings.Lines(text) {
		path, _, _ := strings.Cut(line, ":")
		if want == nil || slices.Contains(wanted, any(path)) {
			paths = append(paths, path)
		}
	}
	return paths
}

func list(texts []string) []any {
	out := []any{}
	for _, t := range texts {
		out = append(out, t)
	}
	return out
}
