package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// RaiseCloseWait gives connections that one side has closed at least so long to be closed by the
// other, before the kernel forgets how they were translated. Its own default of a minute cuts off
// clients that still read. A longer one stays. Dir is /proc/sys/net/netfilter, or where that is mounted.
func RaiseCloseWait(dir string, atLeast time.Duration) error {
	file := filepath.Join(dir, "nf_conntrack_tcp_timeout_close_wait")
	had, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("close wait: %w", err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(had)), 10, 64)
	if err != nil {
		return fmt.Errorf("close wait: %w", err)
	}
	want := int64(atLeast / time.Second)
	if seconds >= want {
		return nil
	}
	if err := os.WriteFile(file, strconv.AppendInt(nil, want, 10), 0o644); err != nil {
		return fmt.Errorf("close wait: %w", err)
	}
	return nil
}
