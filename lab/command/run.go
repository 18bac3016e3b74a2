package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/topology"
)

// The process behind a lab is spoken to through its standard input: the configuration as a line of
// JSON, then, once it said that it is ready, the line below. An end of the input before that means
// that whoever started it is gone, and it undoes the start.
const commitLine = "commit\n"

// runLab is that process. Until it is committed it leaves nothing of a fresh lab, whatever happens.
func runLab(ctx context.Context, version string) error {
	signal.Ignore(unix.SIGPIPE) // whoever watched the start may be gone
	unix.Umask(0o022)           // the lab's directories can be passed through, whatever the caller's mask
	encode := json.NewEncoder(os.Stdout)
	report := func(e cluster.Event) { _ = encode.Encode(e) }
	err := runClaimed(ctx, os.Stdin, version, report)
	if err != nil {
		report(cluster.Event{State: cluster.Failed, Error: err.Error()})
	}
	return err
}

func runClaimed(ctx context.Context, line *os.File, version string, report func(cluster.Event)) (err error) {
	in := bufio.NewReader(line)
	config, err := readConfig(in)
	if err != nil {
		return err
	}
	// Nothing would tell the next `lab down` of a start that begins only after its starter is gone.
	if closed(line) {
		return errors.New("whoever started this lab is gone")
	}
	topo, err := topology.New(config)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	claim, err := cluster.Take(config)
	if err != nil {
		return explain(config.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var committed atomic.Bool
	defer func() {
		if claim.Fresh && !committed.Load() {
			err = errors.Join(err, claim.Undo())
		}
		err = errors.Join(err, claim.Release())
	}()
	report(cluster.Event{State: cluster.Claimed, Fresh: claim.Fresh})
	if err := logTo(filepath.Join(cluster.PathsOf(config.Name).Dir, "lab.log")); err != nil {
		return err
	}
	go func() {
		if line, _ := in.ReadString('\n'); line == commitLine {
			committed.Store(true)
		} else {
			cancel()
		}
	}()
	err = cluster.Run(ctx, cluster.Options{Topology: topo, Program: program, Version: version, Report: report})
	if err == nil && !committed.Load() {
		return errors.New("stopped while it started")
	}
	return err
}

// closed tells whether nobody has the other end of a pipe any more.
func closed(pipe *os.File) bool {
	poll := []unix.PollFd{{Fd: int32(pipe.Fd())}} // that it hung up is always told
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1 && poll[0].Revents&unix.POLLHUP != 0
}

func readConfig(in *bufio.Reader) (topology.Config, error) {
	var c topology.Config
	line, err := in.ReadBytes('\n')
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	return c, json.Unmarshal(line, &c)
}

// logTo makes a file this process's standard error, so that a crash is told there too.
func logTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.Dup3(int(f.Fd()), unix.Stderr, 0)
}
