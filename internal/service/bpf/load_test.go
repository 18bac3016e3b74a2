package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The verifier says "permission denied" too, of what a program does.
func TestRefusedTellsWhoRefuses(t *testing.T) {
	verifier := &ebpf.VerifierError{Cause: unix.EACCES, Log: []string{"0: r1 = 1", "R1 type=scalar expected=ctx"}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("program connect4: %w", verifier), "expected=ctx"},
		{fmt.Errorf("program connect4: %w", unix.EPERM), "CAP_BPF"},
		{fmt.Errorf("map slots: %w", &ebpf.VerifierError{Cause: unix.EPERM}), "CAP_BPF"},
		{errors.New("no such helper"), "no such helper"},
	} {
		if got := refused(c.err).Error(); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q does not tell %q", c.err, got, c.want)
		}
	}
}
