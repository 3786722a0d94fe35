package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// address is where to listen: host:port, :port or unix:/path. Empty: not at all.
type address string

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *address) UnmarshalText(text []byte) error {
	*a = address(text)
	if *a == "" || strings.HasPrefix(string(*a), "unix:/") {
		return nil
	}
	_, port, err := net.SplitHostPort(string(*a))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is no address: use host:port, :port or unix:/path", text)
	}
	return nil
}

// period is a duration that is not negative.
type period time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *period) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no duration: use one such as 500ms, 5s or 1h30m", text)
	}
	*p = period(d)
	return nil
}

// size is a number of bytes above 0.
type size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMGTiB")
	units := map[string]int64{
		"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	unit := units[string(text[len(digits):])]
	if err != nil || n < 1 || unit == 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is no size: use one such as 512MiB or 4GB", text)
	}
	*s = size(n * unit)
	return nil
}

// replicas is how many replicas of Redis something is asked of.
type replicas int

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *replicas) UnmarshalText(text []byte) error {
	const most = 100
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || n > most {
		return fmt.Errorf("%q is no number of replicas: use one from 0 to %d", text, most)
	}
	*r = replicas(n)
	return nil
}

// count is how many of something there may be.
type count int

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *count) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no number: use one such as 100000, or 0 for none", text)
	}
	*c = count(n)
	return nil
}

// level is a log level.
type level slog.Level

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *level) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "debug":
		*l = level(slog.LevelDebug)
	case "info":
		*l = level(slog.LevelInfo)
	case "warn":
		*l = level(slog.LevelWarn)
	case "error":
		*l = level(slog.LevelError)
	default:
		return fmt.Errorf("%q is no log level: use debug, info, warn or error", text)
	}
	return nil
}

// format is how log lines are written.
type format string

const (
	formatText format = "text"
	formatJSON format = "json"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *format) UnmarshalText(text []byte) error {
	*f = format(strings.ToLower(string(text)))
	if *f != formatText && *f != formatJSON {
		return fmt.Errorf("%q is no log format: use text or json", text)
	}
	return nil
}

// headerName is the name of a response header.
type headerName string

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *headerName) UnmarshalText(text []byte) error {
	*h = headerName(text)
	const allowed = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if *h == "" || strings.Trim(string(*h), allowed) != "" {
		return fmt.Errorf("%q is no name of a header: use letters, digits and hyphens", text)
	}
	return nil
}

// keyPrefix stands before every key in Redis.
type keyPrefix string

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *keyPrefix) UnmarshalText(text []byte) error {
	*k = keyPrefix(text)
	if strings.ContainsAny(string(*k), "{}") {
		return fmt.Errorf("%q contains a brace: leave braces out, they mark the shard of a Redis Cluster", text)
	}
	return nil
}
