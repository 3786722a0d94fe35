// Package ration is the root of a rate-limit decision service that speaks Envoy's RateLimitService: it answers
// whether a caller may spend this much now. It holds no code. The program is cmd/ration.
//
// To read the code, follow a request down: server (transports) asks engine (use cases), which finds the rules in
// policy and applies them in store as one atomic step, with the arithmetic of limit. Start with package limit, which
// needs nothing else. Which package may import which is written, and checked, in architecture_test.go.
package ration
