package loadgen

import (
	"slices"
	"strings"
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
)

func TestOverallCodeIsReadFromRealAnswers(t *testing.T) {
	full := func(code rlsv3.RateLimitResponse_Code) []byte {
		encoded, err := proto.Marshal(&rlsv3.RateLimitResponse{
			OverallCode: code,
			Statuses:    []*rlsv3.RateLimitResponse_DescriptorStatus{{Code: rlsv3.RateLimitResponse_OVER_LIMIT, LimitRemaining: 7}},
			RawBody:     []byte("slow down"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	okLast := slices.Concat(full(rlsv3.RateLimitResponse_UNKNOWN), []byte{0x08, 0x01})
	tests := []struct {
		name   string
		answer []byte
		want   overallCode
		broken bool
	}{
		{"OK", full(rlsv3.RateLimitResponse_OK), codeOK, false},
		{"OVER_LIMIT", full(rlsv3.RateLimitResponse_OVER_LIMIT), codeOverLimit, false},
		{"no overall code", full(rlsv3.RateLimitResponse_UNKNOWN), 0, false},
		{"empty", nil, 0, false},
		{"another order of fields", okLast, codeOK, false},
		{"cut off", okLast[:len(okLast)-1], 0, true},
		{"cut off within a field", full(rlsv3.RateLimitResponse_UNKNOWN)[:3], 0, true},
		{"garbage", []byte{0xff, 0xff}, 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeOverallCode(test.answer)
			if got != test.want || (err != nil) != test.broken {
				t.Errorf("got %v, error %v; want %v, broken %v", got, err, test.want, test.broken)
			}
		})
	}
}

func TestOnlyCompleteMessagesAreAnswers(t *testing.T) {
	ok := []byte{0, 0, 0, 0, 2, 0x08, 0x01}
	tests := []struct {
		name string
		body []byte
		want string
	}{
		{"complete", ok, ""},
		{"nothing", nil, "not a gRPC message"},
		{"shorter than announced", ok[:6], "announced 2"},
		{"a second message", slices.Concat(ok, ok), "announced 2"},
		{"compressed", []byte{1, 0, 0, 0, 2, 0x08, 0x01}, "compressed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, _, err := (&call{body: test.body}).outcome()
			switch {
			case test.want == "" && (err != nil || code != codeOK):
				t.Errorf("got %v, %v; want OK", code, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, %v; want an error with %q", code, err, test.want)
			}
		})
	}
}
