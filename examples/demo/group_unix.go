//go:build unix

package main

import "syscall"

// ownGroup keeps the signals of a terminal away from a program.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
