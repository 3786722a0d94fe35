package contract

import (
	"bufio"
	"context"
	"net"
	"strconv"
	"strings"
	"time"
)

// RedisServer is a redis-server of the run's own.
type RedisServer struct {
	// Addr is its host and port.
	Addr string
	// Stop ends it at once, as a crash would.
	Stop func()
}

// keys counts the keys.
func (r *RedisServer) keys(ctx context.Context) (int, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("DBSIZE\r\n")); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), ":"))
}
