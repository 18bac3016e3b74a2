// Package driver is the processes that make traffic for the benchmarks, and those that it goes to.
// They use raw system calls, so that what is measured is the kernel and not Go's poller, and they do
// one thing at a time.
package driver

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Task is what a driver is asked to do.
type Task string

// The tasks.
const (
	Connect Task = "connect" // Count connects, one after the other, to random targets; Samples, and Beside if asked for
	Rate    Task = "rate"    // Workers connections at a time, opened and closed, for Length
	Request Task = "request" // the same, each with a short HTTP request and its answer
	Stream  Task = "stream"  // Workers connections, on which bytes are sent for Length
	Blast   Task = "blast"   // datagrams of 64 bytes for Length
	Await   Task = "await"   // connects to the first target until one has the outcome Want
	Socket  Task = "socket"  // Count sockets, opened and closed without a connect; Samples
	Clock   Task = "clock"   // Count pairs of readings of the clock; Samples
	Tell    Task = "tell"    // of a server: what has come
)

// Outcome is how a connect ends.
type Outcome string

// The outcomes.
const (
	Open    Outcome = "open"
	Refused Outcome = "refused"
	Failed  Outcome = "failed" // in any other way, or not within a second
)

// Job is a task with its figures; those that a task does not know are ignored.
type Job struct {
	Task    Task
	Targets []netip.AddrPort
	Beside  []netip.AddrPort // for Connect: as many connects go to these, in turn with the others
	Count   int
	Workers int
	Length  time.Duration // for Await: how long at most
	Pause   time.Duration // for Await: between connects
	Want    Outcome
	Seed    uint64
}

// Reply is what came of a job.
type Reply struct {
	Samples  []time.Duration
	Beside   []time.Duration
	Outcomes map[Outcome]int
	Done     uint64 // connections, requests, bytes or datagrams
	Took     time.Duration
	At       time.Duration // on the machine's monotonic clock: when the awaited connect was done
	Err      string
}

// patience is how long a connect may take before it has failed.
const patience = time.Second

// Now is the time on the clock that all processes of the machine share.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is no machine without that clock
	}
	return time.Duration(t.Nano())
}

// Pin keeps this process, with all of its threads, on one CPU; less than 0: on all that there are.
func Pin(cpu int) error {
	var set unix.CPUSet
	if cpu < 0 {
		set.Fill()
	} else {
		set.Set(cpu)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		var id int
		if _, err := fmt.Sscan(t.Name(), &id); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// Main does the jobs that come in until there are no more.
func Main(in io.Reader, out io.Writer) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // it is collected between jobs
	return answer(in, out, func(j Job) (Reply, error) {
		runtime.GC()
		random := rand.New(rand.NewPCG(j.Seed, 0))
		switch j.Task {
		case Connect:
			return connects(j, random)
		case Socket:
			return sockets(j)
		case Clock:
			return clocks(j)
		case Rate, Request:
			return rate(j, random)
		case Stream:
			return stream(j)
		case Blast:
			return blast(j)
		case Await:
			return await(j)
		}
		return Reply{}, fmt.Errorf("no task %q", j.Task)
	})
}

func answer(in io.Reader, out io.Writer, do func(Job) (Reply, error)) error {
	jobs, replies := gob.NewDecoder(in), gob.NewEncoder(out)
	for {
		var j Job
		if err := jobs.Decode(&j); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		r, err := do(j)
		if err != nil {
			r.Err = err.Error()
		}
		if err := replies.Encode(r); err != nil {
			return err
		}
	}
}

// Process is a driver or a server that runs.
type Process struct {
	cmd     *exec.Cmd
	in      io.Closer
	mu      sync.Mutex
	jobs    *gob.Encoder
	replies *gob.Decoder
}

// Start starts a command that calls Main or Serve.
func Start(cmd *exec.Cmd) (*Process, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Process{cmd: cmd, in: in, jobs: gob.NewEncoder(in), replies: gob.NewDecoder(out)}, nil
}

// Do has a job done.
func (p *Process) Do(j Job) (Reply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.jobs.Encode(j); err != nil {
		return Reply{}, fmt.Errorf("%s: %w", j.Task, err)
	}
	var r Reply
	if err := p.replies.Decode(&r); err != nil {
		return Reply{}, fmt.Errorf("%s: %w", j.Task, err)
	}
	if r.Err != "" {
		return r, fmt.Errorf("%s: %s", j.Task, r.Err)
	}
	return r, nil
}

// Close ends the process.
func (p *Process) Close() error {
	err := p.in.Close()
	return errors.Join(err, p.cmd.Wait())
}
