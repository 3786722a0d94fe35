// Package e2e proves that ration works where it is used: behind a real Envoy, in front of a real HTTP service.
//
// The tests start programs, namely Envoy with the bootstrap that users start from (../http-ratelimit.yaml), ration as
// built from ./cmd/ration, and Redis, and then behave like clients. They import nothing of this module: what they know
// about ration is what its users know.
//
// Read scenarios_test.go first: policies, requests and the answers that are due, each played at all three doors of
// ration, which are Envoy, gRPC and /json. Beside them: filter_test.go (what Envoy itself does; its results are the
// table in docs/envoy.md), model*_test.go (what it does with the traffic of a model's API: the second table there),
// shipped_test.go and reserve_test.go (the shipped files, as a newcomer meets them), llm*_test.go (what the bootstraps for models
// promise: the table in docs/envoy-models.md), charge_test.go, reload_test.go and outage_test.go.
package e2e
