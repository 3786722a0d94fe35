package redis

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Forms lists what a store's URL may look like, for help texts and errors.
const Forms = "redis://[user:password@]host:port[/db], rediss://… (TLS), unix:///path/to/redis.sock, " +
	"redis-sentinel://[user:password@]host:port,host:port/master[/db], " +
	"redis-cluster://[user:password@]host:port,host:port"

// parameters are the query parameters that a store's URL may carry.
var parameters = []string{"db", "pool_size", "client_name", "tls", "skip_verify", "sentinel_username", "sentinel_password"}

// address is a store's URL, taken apart. net/url does not read several hosts.
type address struct {
	scheme, user, path string
	hosts              []string
	query              url.Values
}

func parseAddress(raw string) (*address, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, fmt.Errorf("the store is no URL: use one of %s", Forms)
	}
	rest, rawQuery, _ := strings.Cut(rest, "?")
	query, err := url.ParseQuery(rawQuery)
	unknown := func(name string) bool { return !slices.Contains(parameters, name) }
	if strings.Contains(rawQuery, "@") && (err != nil || slices.ContainsFunc(slices.Collect(maps.Keys(query)), unknown)) {
		// What is no parameter may be the end of a password, and is not repeated.
		return nil, fmt.Errorf("the query of the store's URL has an @ and is not valid: write a ? in a user or a password as %%3F; "+
			"parameters are %s", strings.Join(parameters, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("the query of the store's URL: %w", err)
	}
	for name := range query {
		if unknown(name) {
			return nil, fmt.Errorf("unknown parameter %q in the store's URL: known are %s", name, strings.Join(parameters, ", "))
		}
	}
	for _, name := range []string{"tls", "skip_verify"} {
		if is := query.Get(name); query.Has(name) && is != "true" && is != "false" {
			return nil, fmt.Errorf("%s=%s in the store's URL is not valid: it is true or false", name, is)
		}
	}
	authority, path, _ := strings.Cut(rest, "/")
	a := &address{scheme: scheme, path: strings.Trim(path, "/"), query: query}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		a.user, authority = authority[:at+1], authority[at+1:]
	}
	a.hosts = strings.Split(authority, ",")
	if scheme == "unix" {
		return a, nil
	}
	if slices.Contains(a.hosts, "") {
		return nil, fmt.Errorf("the store's URL lacks a host: use one of %s", Forms)
	}
	for i := range a.hosts {
		if err := a.completePort(&a.hosts[i]); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// completePort gives a host the usual port if it has none.
func (a *address) completePort(host *string) error {
	usual := "6379"
	if a.scheme == "redis-sentinel" {
		usual = "26379"
	}
	if _, port, err := net.SplitHostPort(*host); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("the port of a host in the store's URL is not valid: it is a number from 1 to 65535")
		}
		return nil
	}
	*host = net.JoinHostPort(strings.Trim(*host, "[]"), usual)
	return nil
}

// NewClient returns a client by the settings of a store, for what lies in the same Redis beside counters. It repeats
// commands and follows redirections, as go-redis does by itself, which whoever uses it has to bear. The caller closes it.
func NewClient(opts Options) (redis.UniversalClient, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	return connectBy(opts, func(u *redis.UniversalOptions) {
		u.MaxRetries, u.MaxRedirects, u.OnConnect = 0, 0, nil // 0 is go-redis's own choice
	})
}

// connect makes the client that opts.URL asks for. Nothing is dialled yet.
func connect(opts Options) (redis.UniversalClient, error) {
	return connectBy(opts, func(*redis.UniversalOptions) {})
}

// connectBy lets adjust change the settings.
func connectBy(opts Options, adjust func(*redis.UniversalOptions)) (redis.UniversalClient, error) {
	a, err := parseAddress(opts.URL)
	if err != nil {
		return nil, err
	}
	db, master := a.path, ""
	switch a.scheme {
	case "redis", "rediss":
		if len(a.hosts) > 1 {
			return nil, fmt.Errorf("%s:// takes one host: for several use redis-cluster:// or redis-sentinel://", a.scheme)
		}
	case "unix":
		db = a.query.Get("db")
	case "redis-sentinel":
		master, db, _ = strings.Cut(a.path, "/")
		if master == "" {
			return nil, fmt.Errorf("a Sentinel URL names the master: redis-sentinel://host:port,host:port/master[/db]")
		}
	case "redis-cluster":
		if a.path != "" {
			return nil, fmt.Errorf("a cluster's URL has no path: a Redis Cluster has one database only")
		}
	default:
		return nil, fmt.Errorf("unknown scheme %q of the store: use one of %s", a.scheme, Forms)
	}
	common, err := redis.ParseURL(a.ofFirstHost(db))
	if err != nil {
		return nil, fmt.Errorf("the store's URL is not valid (%s): use one of %s", withoutURL(err), Forms)
	}
	if common.DB < 0 {
		return nil, fmt.Errorf("the database %d in the store's URL is not valid: they are numbered from 0", common.DB)
	}
	u := settings(opts, common)
	adjust(u)
	u.Addrs = a.hosts
	u.MasterName = master
	u.SentinelUsername, u.SentinelPassword = a.query.Get("sentinel_username"), a.query.Get("sentinel_password")
	switch a.scheme {
	case "redis-sentinel":
		return redis.NewFailoverClient(u.Failover()), nil
	case "redis-cluster":
		return redis.NewClusterClient(u.Cluster()), nil
	case "unix":
		u.Addrs = []string{common.Addr}
	}
	return redis.NewClient(u.Simple()), nil
}

// settings is what every client is set to, whichever way Redis runs.
//
// go-redis repeats commands by default, after time-outs too, and so would charge twice: repeating
// is off. A cluster's redirections are off as well, because its client repeats on any network error
// within their budget; applyPart follows them.
func settings(opts Options, common *redis.Options) *redis.UniversalOptions {
	u := &redis.UniversalOptions{
		DB: common.DB, Username: common.Username, Password: common.Password,
		ClientName: common.ClientName, PoolSize: common.PoolSize, TLSConfig: common.TLSConfig,
		MaxRetries: -1, MaxRedirects: -1, DialerRetries: 1,
		DialTimeout: opts.Timeout, ReadTimeout: opts.Timeout, WriteTimeout: opts.Timeout, PoolTimeout: opts.Timeout,
		ContextTimeoutEnabled:    true,
		OnConnect:                loadScript,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if u.TLSConfig != nil {
		u.TLSConfig.ServerName = "" // each node has its own, which is what was dialled
	}
	if opts.TLS != nil {
		u.TLSConfig = opts.TLS
	}
	return u
}

// ofFirstHost writes the URL in the form that go-redis reads.
func (a *address) ofFirstHost(db string) string {
	query := url.Values{}
	for _, name := range []string{"pool_size", "client_name", "skip_verify"} {
		if a.query.Has(name) {
			query.Set(name, a.query.Get(name))
		}
	}
	if db = cmp.Or(db, a.query.Get("db")); db != "" {
		query.Set("db", db)
	}
	if a.scheme == "unix" {
		return "unix://" + a.user + "/" + a.path + "?" + query.Encode()
	}
	scheme := "redis://"
	if a.scheme == "rediss" || a.query.Get("tls") == "true" {
		scheme = "rediss://"
	}
	return scheme + a.user + a.hosts[0] + "?" + query.Encode()
}

// loadScript runs on every new connection, so that the script is missing only after SCRIPT FLUSH.
// A failure is left to the first command, which says more.
func loadScript(ctx context.Context, conn *redis.Conn) error {
	if err := conn.Time(ctx).Err(); redis.HasErrorPrefix(err, "NOAUTH") {
		return err // to a script Redis would not even say that: it is too long for who has not said who he is
	}
	_ = script().Load(ctx, conn).Err()
	return nil
}

// withoutURL words an error of the URL parser without the URL itself, which may hold a password.
func withoutURL(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, `": `); i >= 0 {
		text = text[i+len(`": `):]
	}
	return text
}
