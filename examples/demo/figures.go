package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// nanos is money in nano-dollars, as ration counts it.
type nanos int64

// String is the whole amount, at least to a millionth: the least that a token costs whose price is in whole dollars.
func (n nanos) String() string { return n.from(6) }

// round is the whole amount, at least to the cent.
func (n nanos) round() string { return n.from(2) }

// from is the whole amount, with so many decimals at least.
func (n nanos) from(decimals int) string {
	text := fmt.Sprintf("$%d.%09d", n/1e9, n%1e9)
	least := strings.Index(text, ".") + 1 + decimals
	return text[:least] + strings.TrimRight(text[least:], "0")
}

// brief is the amount to a hundredth of a cent, rounded down, so that figures stand below each other.
func (n nanos) brief() string { return fmt.Sprintf("$%d.%04d", n/1e9, n%1e9/1e5) }

// grouped writes a number with commas.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// clock writes a duration as 1:05.
func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
