package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMemoryIsReadFromStatus(t *testing.T) {
	const status = "Name:\tration\nVmPeak:\t 9 kB\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\nThreads:\t7\n"
	got, err := parseStatus(status)
	if want := (usage{Resident: 1000 << 10, Peak: 2000 << 10}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "VmRSS: 1 kB\n", "VmRSS: 1 kB\nVmHWM: much\n"} {
		if _, err := parseStatus(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestLiveHeapIsReadFromTheProfile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/heap":
			fmt.Fprint(w, "heap profile: 1: 2 [3: 4] @ heap/1048576\n\n# runtime.MemStats\n# Alloc = 1\n# HeapAlloc = 12345\n# HeapSys = 3\n")
		case "/binary":
			fmt.Fprint(w, "\x1f\x8b\x08")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	if got, err := liveHeap(t.Context(), server.URL+"/heap"); err != nil || got != 12345 {
		t.Errorf("got %d, %v; want 12345", got, err)
	}
	for path, want := range map[string]string{"/binary": "debug=1", "/none": "404"} {
		if _, err := liveHeap(t.Context(), server.URL+path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", path, err, want)
		}
	}
}
