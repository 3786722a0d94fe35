package main

// serveFlags are the flags of ration serve. Each is also a variable: see envPrefix.
type serveFlags struct {
	Policy      []string `group:"policy" sep:"none" placeholder:"PATH" help:"File, or directory with all *.yaml and *.yml below it; may be given several times (in the environment: with commas between). Files that change are read again. None: an example."`
	policyFlags `group:"policy"`

	Shadow bool `group:"policy" help:"Let every request pass, whatever its limits say; count as ever."`
	Quota  bool `group:"policy" help:"Refuse a request only if all of its descriptors are over their limits."`

	Store              string    `group:"store" default:"memory" placeholder:"URL" help:"memory (this process alone), or ${redis_forms}."`
	Data               string    `group:"store" placeholder:"DIR" help:"Directory for what has to survive the end of the process, with --store memory; made if it is not there. None: all is gone then."`
	MaxMemory          size      `group:"store" default:"1GiB" placeholder:"SIZE" help:"About how much memory counters may take, with --store memory: beyond, new ones are refused. Default 1GiB."`
	RedisTimeout       period    `group:"store" default:"1s" placeholder:"DURATION" help:"Longest wait for Redis: to connect, and for an answer. Default 1s."`
	RedisWaitReplicas  replicas  `group:"store" default:"0" placeholder:"N" help:"Answer only when so many replicas of Redis have what was written: a failover then loses less. Default 0."`
	RedisTLS           bool      `group:"store" name:"redis-tls" help:"Use TLS to Redis, as rediss:// does."`
	RedisTLSCA         string    `group:"store" name:"redis-tls-ca" placeholder:"FILE" help:"PEM file of authorities to trust with Redis beside the system's."`
	RedisTLSCert       string    `group:"store" name:"redis-tls-cert" placeholder:"FILE" help:"PEM file of the certificate to show to Redis."`
	RedisTLSKey        string    `group:"store" name:"redis-tls-key" placeholder:"FILE" help:"PEM file of its key."`
	RedisTLSSkipVerify bool      `group:"store" name:"redis-tls-skip-hostname-verification" help:"Accept a certificate of Redis for any host name, from a trusted authority."`
	CacheKeyPrefix     keyPrefix `group:"store" placeholder:"TEXT" help:"Stands before every key in Redis, so that several installations can share one."`

	ReportQueue       count `group:"store" default:"100000" placeholder:"N" help:"How many reports of usage, of those that Envoy sends, wait at most while the store cannot take them; 0: none. Default 100000."`
	ReportQueueMemory size  `group:"store" default:"128MiB" placeholder:"SIZE" help:"How much memory they take at most. Default 128MiB."`

	GRPCAddr    address `group:"listen" name:"grpc-addr" default:":8081" placeholder:"ADDR" help:"Envoy's RateLimitService, ration.v1, health, reflection. Default :8081."`
	HTTPAddr    address `group:"listen" name:"http-addr" default:":8080" placeholder:"ADDR" help:"/json, ration.v1 as JSON, and /healthcheck. Default :8080."`
	MetricsAddr address `group:"listen" default:":9090" placeholder:"ADDR" help:"/metrics for Prometheus. Default :9090."`
	DebugAddr   address `group:"listen" default:"127.0.0.1:6070" placeholder:"ADDR" help:"/rlconfig and /debug/pprof/: keep it private. Default 127.0.0.1:6070."`
	AdminAddr   address `group:"listen" default:"127.0.0.1:8082" placeholder:"ADDR" help:"ration.v1.AdminService, over gRPC and as JSON: for this machine alone, unless --access says who calls. Default 127.0.0.1:8082."`
	Access      string  `group:"listen" placeholder:"FILE" help:"Tokens and certificates, of which callers of ration.v1 need one, at every address; read again when it changes. ration token new makes tokens. None: nobody is asked who calls."`
	InsecureAPI bool    `group:"listen" name:"insecure-api" help:"Let everybody call ration.v1.AccountingService and UsageService who reaches --grpc-addr or --http-addr. Without it, only callers on the same machine may, on loopback addresses."`

	TLSCert           string   `group:"tls" name:"tls-cert" placeholder:"FILE" help:"PEM file of the certificate and its chain. None: plaintext."`
	TLSKey            string   `group:"tls" name:"tls-key" placeholder:"FILE" help:"PEM file of its key."`
	TLSClientCA       string   `group:"tls" name:"tls-client-ca" placeholder:"FILE" help:"PEM file of authorities: clients must show a certificate of theirs."`
	TLSClientSAN      []string `group:"tls" name:"tls-client-san" sep:"none" placeholder:"NAME" help:"Name that the client's certificate must be for: DNS, IP, URI or email; may be given several times, then one of them is enough."`
	TLSClientOptional bool     `group:"tls" name:"tls-client-optional" help:"Let clients in that show no certificate: callers of ration.v1 then need a token. One that is shown has to be good all the same."`
	HTTPTLS           bool     `group:"tls" name:"http-tls" help:"TLS on --http-addr too, by all of these."`
	AdminTLS          bool     `group:"tls" name:"admin-tls" help:"TLS on --admin-addr too, by all of these."`

	ResponseHeaders         bool       `group:"answers" help:"Add the three limit headers to responses."`
	ResponseHeaderLimit     headerName `group:"answers" default:"RateLimit-Limit" placeholder:"NAME" help:"Name of the first. Default RateLimit-Limit."`
	ResponseHeaderRemaining headerName `group:"answers" default:"RateLimit-Remaining" placeholder:"NAME" help:"Name of the second. Default RateLimit-Remaining."`
	ResponseHeaderReset     headerName `group:"answers" default:"RateLimit-Reset" placeholder:"NAME" help:"Name of the third. Default RateLimit-Reset."`
	ResponseMetadata        bool       `group:"answers" help:"Describe the request, and the metadata of the rules that admitted it, as dynamic metadata."`
	ResponseBody            bool       `group:"answers" help:"Give refused requests a body (application/problem+json) and Retry-After."`
	RequestHeaders          bool       `group:"answers" help:"Add ration-tier to admitted requests, and ration-NAME for each attribute of the tier."`

	WebhookURL        string `group:"webhook" name:"webhook-url" placeholder:"URL" help:"Where events of thresholds (warn_at) are sent, as https://example.com/hook. None: nowhere."`
	WebhookSecretFile string `group:"webhook" placeholder:"FILE" help:"File with the secret that signs them, whsec_ and base64. None: it is in RATION_WEBHOOK_SECRET."`

	MaxConnectionAge      period `group:"lifecycle" default:"24h" placeholder:"DURATION" help:"Ask clients to reconnect after it, so that load reaches new replicas; 0: never. Default 24h."`
	MaxConnectionAgeGrace period `group:"lifecycle" default:"1h" placeholder:"DURATION" help:"Time that calls have to end then; 0: any. Default 1h."`
	Keepalive             period `group:"lifecycle" default:"2h" placeholder:"DURATION" help:"Probe a connection that has been silent for so long; 0: never. Default 2h."`
	DrainDelay            period `group:"lifecycle" default:"5s" placeholder:"DURATION" help:"At the end, answer for so long while clients turn away. Default 5s."`
	StopTimeout           period `group:"lifecycle" default:"10s" placeholder:"DURATION" help:"After that, time for calls under way, and for reports that wait. Default 10s."`

	LogLevel  level  `group:"log" default:"warn" placeholder:"LEVEL" help:"debug, info, warn or error. Default warn."`
	LogFormat format `group:"log" default:"text" placeholder:"FORMAT" help:"text or json. Default text."`
	Banner    bool   `group:"log" help:"Say at start where to reach what, what the limits mean, and a command to try."`
}

// policyFlags say how policies are read.
type policyFlags struct {
	MergeDomains bool `help:"Let several files add rules to one domain; otherwise that is an error."`
	Strict       bool `help:"Take warnings about policies for errors."`
	AllFiles     bool `help:"Read every file of a directory, whatever its name ends in, as envoyproxy/ratelimit does."`
	DotFiles     bool `help:"Read files and directories too whose names begin with a dot."`
}
