package bpf

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the clock of programs (bpf_ktime_get_coarse_ns): since the machine's start, without
// the time that it was suspended.
func Monotonic() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
