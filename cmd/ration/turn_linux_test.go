package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// terminal opens a terminal, and what shows on it.
func terminal(t *testing.T) (on, shows *os.File) {
	t.Helper()
	shows, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shows.Close() })
	var number, unlocked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlocked, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, shows.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	on, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = on.Close() })
	return on, shows
}

// TestStandingOnATerminal: who waits sees how the call stands, in one line, of which nothing is left in the end.
func TestStandingOnATerminal(t *testing.T) {
	serveLane(t)
	on, shows := terminal(t)
	var stdout bytes.Buffer
	says(t, exitOK, strings.Fields("reserve user=alice --lane one -o csv"), `limit,.*`, `.*`, `.*`)
	if code := run(strings.Fields("reserve user=bob --lane one --wait 1500ms"), &stdout, on); code != exitRefused {
		t.Errorf("exit code %d", code)
	}
	fmt.Fprintln(on, "the end")
	shown, err := bufio.NewReader(shows).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(shown, "\r\n"), eraseLine)
	last := len(lines) - 1
	if last < 2 || lines[0] != "" || lines[last] != "the end" {
		t.Fatalf("shown was %q", shown)
	}
	for _, l := range lines[1:last] {
		if !strings.HasPrefix(l, "waiting: 1 of 1 in line") {
			t.Errorf("the line was %q", l)
		}
	}
}
