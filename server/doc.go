// Package server puts the transports on their listeners and takes them down again: gRPC (packages
// rls, api and status, health, reflection), HTTP (/json, the packages api and status through package
// gateway, /healthcheck), metrics, debugging, and package admin on an address of its own.
//
// It knows how to start, drain and stop, who may call what, and nothing of how a limit works. Read
// [Server.Serve].
package server
