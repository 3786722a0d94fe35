package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A machine says where and with what versions a comparison ran.
type machine struct {
	Time   time.Time `json:"time"`
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Kernel string    `json:"kernel"`
	Go     string    `json:"go"`
	// GRPC is the version of grpc-go in the generator and the floor.
	GRPC string `json:"grpc_go"`
	// Redis is empty if no contestant uses one.
	Redis string `json:"redis,omitempty"`
}

func (m machine) String() string {
	text := fmt.Sprintf("%d cores (%s), Linux %s, %s, grpc-go %s", m.Cores, m.CPU, m.Kernel, m.Go, m.GRPC)
	if m.Redis != "" {
		text += ", Redis " + m.Redis
	}
	return text
}

// lookAround describes this machine. What cannot be found out is "unknown": it is only for the reader.
func lookAround(redisServer string) machine {
	found := machine{
		Time: time.Now(), Cores: runtime.NumCPU(), Go: runtime.Version(),
		CPU: "unknown CPU", Kernel: "unknown", GRPC: "unknown",
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model, ok := field(string(text), "model name"); ok {
			found.CPU = model
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		found.Kernel = strings.TrimSpace(string(text))
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "google.golang.org/grpc" {
				found.GRPC = module.Version
			}
		}
	}
	if redisServer != "" {
		found.Redis = "unknown"
		// Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=…
		if text, err := exec.Command(redisServer, "--version").Output(); err == nil {
			for word := range strings.FieldsSeq(string(text)) {
				if version, ok := strings.CutPrefix(word, "v="); ok {
					found.Redis = version
				}
			}
		}
	}
	return found
}

// field returns the value of the first line "name : value".
func field(text, name string) (string, bool) {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
