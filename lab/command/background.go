package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/topology"
)

// runInBackground starts the process that runs the lab and follows its start. The pipe to it is the
// lab's life line: closed before the lab is committed, by whatever end of this process, it undoes
// the start.
func runInBackground(ctx context.Context, c topology.Config, wait time.Duration, show *progress) error {
	runner, line, events, err := startRunner(c)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	start := follow(events, show)
	if start.err == nil && stop() {
		if _, err := io.WriteString(line, commitLine); err == nil {
			return runner.Process.Release()
		}
	}
	_ = line.Close()
	_ = runner.Wait() // it undoes what it did first
	show.fail()
	return start.failure(ctx, c.Name, wait)
}

// startRunner starts the process behind a lab and hands it its configuration.
func startRunner(c topology.Config) (runner *exec.Cmd, line io.WriteCloser, events io.Reader, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, nil, nil, err
	}
	runner = exec.Command(self, "internal", "run")
	runner.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is ours to handle
	if line, err = runner.StdinPipe(); err != nil {
		return nil, nil, nil, err
	}
	if events, err = runner.StdoutPipe(); err != nil {
		return nil, nil, nil, err
	}
	if err := runner.Start(); err != nil {
		return nil, nil, nil, err
	}
	// An end of it that comes sooner than this shows in its events.
	_, _ = line.Write(append(config, '\n'))
	return runner, line, events, nil
}

// outcome of a start that was followed.
type outcome struct {
	claimed, fresh bool
	err            error // nil: the lab is ready
}

// follow shows events until the lab is ready or its process is gone.
func follow(events io.Reader, show *progress) outcome {
	end := outcome{err: errors.New("the lab's process ended early")}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e cluster.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue
		}
		switch e.State {
		case cluster.Claimed:
			end.claimed, end.fresh = true, e.Fresh
		case cluster.StepStarted:
			show.start(e.Step)
		case cluster.StepDone:
			show.done(e.Took)
		case cluster.Ready:
			end.err = nil
			return end
		case cluster.Failed:
			show.fail()
			end.err = errors.New(e.Error)
		}
	}
	return end
}

// failure removes what a start that went wrong has left, if its process could not, and says what
// happened. A lab that was there before keeps its state.
func (o outcome) failure(ctx context.Context, name string, wait time.Duration) error {
	kept := ""
	if o.claimed && o.fresh {
		if _, err := cluster.Remove(name); err != nil {
			return errors.Join(o.err, fmt.Errorf("clean up: %w", err))
		}
	} else if o.claimed {
		kept = fmt.Sprintf("; lab %s is stopped and keeps its state", name)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("lab %s is not up after %s: %w: give it longer with --wait%s", name, wait, o.err, kept)
	case ctx.Err() != nil && kept == "":
		return errInterrupted
	case ctx.Err() != nil:
		return interruptedError{kept[2:]}
	case o.err == nil:
		return fmt.Errorf("lab %s ended while it started%s", name, kept)
	}
	return o.err
}
