package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/region"
)

// process is a component of the control plane: a child in the region's namespace that is started
// again whenever it ends, and dies with the lab.
type process struct {
	name    string
	args    []string // program and arguments
	logPath string
	thread  *region.Thread
	ended   func(error) // is told of each end that was not asked for
	stopped chan struct{}
}

const restartPause = time.Second

// run keeps the component running until ctx ends, then stops it.
func (p *process) run(ctx context.Context) {
	defer close(p.stopped)
	for {
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		p.ended(err)
		slog.Warn("starting a component again", "component", p.name, "err", err)
		if !pause(ctx, restartPause) {
			return
		}
	}
}

func (p *process) once(ctx context.Context) error {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if err := p.thread.Do(cmd.Start); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("exit status 0")
		}
		return fmt.Errorf("%s ended: %w: %s", p.name, err, lastLine(p.logPath))
	case <-ctx.Done():
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopPatience):
			_ = cmd.Process.Kill()
			<-ended
		}
		return nil
	}
}

// stopPatience is how long a component may take to stop by itself. Nothing of a lab that goes away
// is worth a longer wait: what etcd has written is with the kernel already.
const stopPatience = 300 * time.Millisecond

// lastLine is the last line of a log, which nearly always says why its program ended.
func lastLine(path string) string {
	const most = 4096
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, 2)
	}
	data := make([]byte, most)
	n, _ := f.Read(data)
	lines := bytes.Split(bytes.TrimSpace(data[:n]), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}
