package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/rationhq/ration/bench/internal/floor"
)

// Whoever reserves without limits is no contestant, but for the floor, of which no more is expected.
func TestAccountsAreExamined(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- floor.Serve(ctx, listener) }()
	addr := listener.Addr().String()
	if err := checkAnswers(t.Context(), addr, false, accountScenarios()); err != nil {
		t.Errorf("the floor: %v", err)
	}
	if err := checkAnswers(t.Context(), addr, true, accountScenarios()); err == nil || !strings.Contains(err.Error(), "no limit applies") {
		t.Errorf("one that should count, and does not: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
