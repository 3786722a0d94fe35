package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a server with an engine that is not made as it has to be, in which every call that needs one panics.
func start(t *testing.T) (*server.Server, *prometheus.Registry) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	s, err := server.New(server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"}, new(engine.Engine), &health.State{}, metrics)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, metrics
}

// A panic anywhere in a call ends that call and nothing else, and is counted.
func TestPanicEndsOnlyItsCall(t *testing.T) {
	s, metrics := start(t)
	conn, err := grpc.NewClient(s.Addr("gRPC"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		_, err := rationv1.NewAccountingServiceClient(conn).Check(context.Background(), &rationv1.CheckRequest{})
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "nil pointer") {
			t.Errorf("a call that panics: %v, want INTERNAL without particulars", err)
		}
	}
	if _, err := rationv1.NewStatusServiceClient(conn).GetHealth(context.Background(), &rationv1.GetHealthRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "ration_panics_total" {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if counted != 3 {
		t.Errorf("%v panics counted, want 3", counted)
	}
}

// Whoever announces a body and does not send it is not waited for.
func TestSlowBody(t *testing.T) {
	s, _ := start(t)
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", s.Addr("HTTP"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open after a minute")
	}
}
