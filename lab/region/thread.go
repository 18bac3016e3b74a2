package region

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread is an operating-system thread that lives in one network namespace. Whatever is done on it
// (sockets opened, links made, processes started) happens in that namespace. The namespace lives as
// long as the thread does, and processes started on it with Pdeathsig die with it.
type Thread struct {
	calls chan func()
	quit  chan struct{} // closed by Close
	done  chan struct{} // closed when the thread has ended
	ns    *os.File
}

// NewThread starts a thread in a new network namespace.
func NewThread() (*Thread, error) {
	return start(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// HostThread starts a thread that stays in the caller's namespace: a steady parent for processes
// that must die with this one.
func HostThread() (*Thread, error) { return start(func() error { return nil }) }

func start(enter func() error) (*Thread, error) {
	t := &Thread{calls: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other goroutine may
		// find itself in this namespace.
		runtime.LockOSThread()
		defer close(t.done)
		err := enter()
		if err == nil {
			t.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case call := <-t.calls:
				call()
			case <-t.quit:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return t, nil
}

// ErrClosed is what Do returns once the thread has ended.
var ErrClosed = errors.New("network namespace is closed")

// Do runs call on the thread and returns its error. Calls run one at a time, so they must be short.
func (t *Thread) Do(call func() error) error {
	result := make(chan error, 1)
	select {
	case t.calls <- func() { result <- call() }:
		return <-result
	case <-t.done:
		return ErrClosed
	}
}

// NS is the thread's network namespace. It stays open until Close.
func (t *Thread) NS() *os.File { return t.ns }

// Close ends the thread and with it the namespace, once nothing else uses it. Call it once.
func (t *Thread) Close() {
	close(t.quit)
	<-t.done
	_ = t.ns.Close()
}

// In runs call on a thread of its own that has entered the namespace ns. Unlike Do it may block.
func In(ns *os.File, call func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: see start
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		result <- call()
	}()
	return <-result
}
