//go:build !unix

package main

import "syscall"

// ownGroup would keep the signals of a terminal away from a program.
func ownGroup() *syscall.SysProcAttr { return nil }
