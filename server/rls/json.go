package rls

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// ServeHTTP answers /json: a RateLimitRequest as protobuf JSON in the body, whatever the method. 200
// and 429 carry the RateLimitResponse; 400 is a request that cannot be answered, 503 a store that
// cannot be asked; both say why in plain text.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxMessageBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			err = errors.New("the request has more than " + strconv.Itoa(MaxMessageBytes) + " bytes")
		}
		badRequest(w, err.Error())
		return
	}
	var request ratelimitv3.RateLimitRequest
	if err := protojson.Unmarshal(body, &request); err != nil {
		badRequest(w, err.Error())
		return
	}
	in, err := proto.Marshal(&request)
	if err != nil {
		badRequest(w, err.Error())
		return
	}
	out, err := s.answer(r.Context(), in)
	// It may have waited in a lane for longer than the server lets others take.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWithin))
	if err != nil {
		failed := status.Convert(err)
		if !badRequests[failed.Code()] {
			w.Header().Set("Retry-After", "1")
			http.Error(w, failed.Message(), http.StatusServiceUnavailable)
			return
		}
		badRequest(w, failed.Message())
		return
	}
	var response ratelimitv3.RateLimitResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer, err := protojson.Marshal(&response)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if response.GetOverallCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT {
		w.WriteHeader(http.StatusTooManyRequests)
	}
	_, _ = w.Write(answer) // the caller may have left
}

// writeWithin is how long a caller may take for an answer.
const writeWithin = 30 * time.Second

// badRequests are the codes that mean: the request is at fault.
var badRequests = map[codes.Code]bool{codes.Unknown: true, codes.InvalidArgument: true}

// badRequest answers 400 in the established words, and says why below them.
func badRequest(w http.ResponseWriter, why string) {
	http.Error(w, "Bad Request\n"+why, http.StatusBadRequest)
}
