package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// limitsPerSubject is how many limits remember each subject of subjectMix.
const limitsPerSubject = 3

// A footprint is the memory that a contestant takes for many subjects, each of which has made one request.
type footprint struct {
	Contestant string `json:"contestant"`
	Subjects   int    `json:"subjects"`
	// Before is how much it took when nobody had asked, After when all had.
	Before usage `json:"before"`
	After  usage `json:"after"`
	// Took is how long the requests took.
	Took time.Duration `json:"took_ns"`
}

// perSubject is how many bytes of the heap one subject takes.
func (f footprint) perSubject() float64 {
	return float64(f.After.LiveHeap-f.Before.LiveHeap) / float64(f.Subjects)
}

// usage is what a process takes of memory at one instant, in bytes.
type usage struct {
	// Resident is what the machine holds for it (RSS), Peak the most that this ever was.
	Resident int64 `json:"resident"`
	Peak     int64 `json:"peak"`
	// LiveHeap is what its garbage collector finds in use; 0 where it does not say.
	LiveHeap int64 `json:"live_heap,omitempty"`
}

// measureFootprints measures all contestants that take part, one after the other.
func (c *comparison) measureFootprints(ctx context.Context) error {
	for _, contestant := range c.contestants {
		if c.pace.Subjects == 0 || !contestant.plays(memory) {
			continue
		}
		measured, err := c.measureFootprint(ctx, contestant)
		if err != nil {
			return fmt.Errorf("memory, contestant %s: %w", contestant.Name, err)
		}
		c.footprints = append(c.footprints, measured)
		fmt.Fprintf(c.progress, "memory  %s  %s subjects in %v: resident %s MB, live heap %s MB, %.0f bytes each\n",
			contestant.Name, grouped(float64(measured.Subjects)), measured.Took.Round(time.Millisecond),
			megabytes(measured.After.Resident), megabytes(measured.After.LiveHeap), measured.perSubject())
	}
	return nil
}

func (c *comparison) measureFootprint(ctx context.Context, contestant contestant) (footprint, error) {
	instance, err := c.launcher.start(ctx, contestant, nil)
	if err != nil {
		return footprint{}, err
	}
	defer instance.stop()
	c.starts = append(c.starts, start{0, contestant.Name, instance.firstAnswer})
	measured := footprint{Contestant: contestant.Name, Subjects: c.pace.Subjects}
	if measured.Before, err = instance.usage(ctx); err != nil {
		return footprint{}, err
	}
	began := time.Now()
	if err := instance.client.Prime(ctx, subjectMix(c.pace.Subjects)); err != nil {
		return footprint{}, err
	}
	measured.Took = time.Since(began)
	if measured.After, err = instance.usage(ctx); err != nil {
		return footprint{}, err
	}
	return measured, checkRemembered(ctx, instance.addr)
}

// usage reads what the instance takes: first what is resident, since looking at the heap collects garbage.
func (i *instance) usage(ctx context.Context) (usage, error) {
	path := fmt.Sprintf("/proc/%d/status", i.server.pid())
	text, err := os.ReadFile(path)
	if err != nil {
		return usage{}, err
	}
	used, err := parseStatus(string(text))
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w", path, err)
	}
	if i.heap != "" {
		if used.LiveHeap, err = liveHeap(ctx, i.heap); err != nil {
			return usage{}, fmt.Errorf("%s: %w", i.heap, err)
		}
	}
	return used, nil
}

// parseStatus reads VmRSS and VmHWM of /proc/PID/status, which are in kB of 1024 bytes.
func parseStatus(text string) (usage, error) {
	var used usage
	for name, into := range map[string]*int64{"VmRSS": &used.Resident, "VmHWM": &used.Peak} {
		value, found := field(text, name)
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
		if !found || err != nil {
			return usage{}, fmt.Errorf("no %s in kB, but %q", name, value)
		}
		*into = kilobytes << 10
	}
	return used, nil
}

func liveHeap(ctx context.Context, url string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return 0, err
	case answer.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("answers %s", answer.Status)
	}
	return parseHeap(string(text))
}

// parseHeap reads HeapAlloc out of the text form of Go's heap profile, at the end of which runtime.MemStats stands.
func parseHeap(profile string) (int64, error) {
	for line := range strings.Lines(profile) {
		if value, found := strings.CutPrefix(line, "# HeapAlloc = "); found {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("no HeapAlloc in the profile: is it the text form (debug=1)?")
}

// checkRemembered makes sure that a subject that has asked before is remembered: it has less left than one that has not.
func checkRemembered(ctx context.Context, addr string) error {
	connection, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	service := rlsv3.NewRateLimitServiceClient(connection)
	var remaining []uint32
	for _, key := range []string{"k0000000", "never-seen"} {
		question, _, err := subjectMix(1).Messages(key, "")
		if err != nil {
			return err
		}
		answer, err := ask(ctx, service, question)
		if err != nil {
			return err
		}
		if len(answer.Statuses) != 1 {
			return fmt.Errorf("got %d statuses for one descriptor", len(answer.Statuses))
		}
		remaining = append(remaining, answer.Statuses[0].LimitRemaining)
	}
	if remaining[0] >= remaining[1] {
		return fmt.Errorf("the first subject has %d left, a new one %d: it was forgotten", remaining[0], remaining[1])
	}
	return nil
}

func megabytes(bytes int64) string { return grouped(float64(bytes) / 1e6) }
