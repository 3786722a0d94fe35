// Package server puts the transports on their listeners and takes them down again: gRPC (package
// rls, package status, health, reflection), HTTP (/json, /healthcheck), metrics and debugging.
//
// It knows how to start, drain and stop, and nothing of how a limit works. Read [Server.Serve].
package server
