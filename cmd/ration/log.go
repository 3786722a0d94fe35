package main

import (
	"io"
	"log/slog"
)

// newLog returns where everything is logged to that an operator should know.
func (f *serveFlags) newLog(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(f.LogLevel)}
	if f.LogFormat == formatJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
