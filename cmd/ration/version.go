package main

import (
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

type versionCmd struct{}

// Run implements the command.
func (versionCmd) Run(to streams) error { //nolint:unparam // the parser calls methods that return an error
	fmt.Fprintln(to.out, thisBuild())
	return nil
}

// build is what the go command wrote into the binary.
type build struct {
	version, commit, goVersion string
	time                       time.Time // of the commit; zero where unknown
}

func thisBuild() build {
	b := build{version: "(devel)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.time":
			b.time, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && b.commit != "" {
		b.commit += "+dirty"
	}
	return b
}

func (b build) String() string {
	text := "ration " + b.version
	if b.commit != "" {
		text += "\ncommit " + b.commit
	}
	if !b.time.IsZero() {
		text += "\ndate   " + b.time.UTC().Format(time.RFC3339)
	}
	return text + "\nbuilt with " + b.goVersion
}

// proto is the same for the status service.
func (b build) proto() *rationv1.GetVersionResponse {
	v := &rationv1.GetVersionResponse{Version: b.version, Commit: b.commit, GoVersion: b.goVersion}
	if !b.time.IsZero() {
		v.BuildTime = timestamppb.New(b.time)
	}
	return v
}
