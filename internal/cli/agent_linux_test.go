package cli

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/agent"
)

// What is led at the socket is not masqueraded: an agent that is to masquerade everything leaves all to
// packets, says why, and is no agent that must have a socket path.
func TestMasqueradeAllIsWithoutSocketPath(t *testing.T) {
	var log bytes.Buffer
	o := agentFlags{node: "n1", honour: honourPlan, meter: wantAuto, nodePorts: []string{"primary"}, socket: wantAuto, masqueradeAll: true,
		bpffs: filepath.Join(t.TempDir(), "none"), cgroup: t.TempDir()}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	c := agent.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := o.paths(&c); err != nil {
		t.Fatal(err)
	}
	if c.Applier == nil || c.Socket != nil || !strings.Contains(c.NoSocket, "--masquerade-all") || !strings.Contains(log.String(), "--masquerade-all") {
		t.Errorf("the paths are %v and %v, %q; log: %s", c.Applier, c.Socket, c.NoSocket, &log)
	}
	o.socket = wantRequire
	if err := o.check(); err == nil || !strings.Contains(err.Error(), "--masquerade-all") || !strings.Contains(err.Error(), "--socket=require") {
		t.Errorf("with a socket path required: %v", err)
	}
	o.cleanup = true
	if err := o.check(); err != nil {
		t.Errorf("taking everything away: %v", err)
	}
	o = agentFlags{socket: wantOff, masqueradeAll: true, bpffs: o.bpffs, cgroup: o.cgroup}
	c = agent.Config{Log: c.Log}
	if err := o.paths(&c); err != nil || c.Socket != nil || c.NoSocket != "" {
		t.Errorf("where nobody asks for it: %v, %v, %q", err, c.Socket, c.NoSocket)
	}
}
