// Package netns is the door to network namespaces: open one, make one, do something inside one.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrGone says that there is no network namespace at a path (any more).
var ErrGone = errors.New("no network namespace there")

// NS is an open network namespace. It lives at least as long as it is open, even when no process
// and no mount holds it.
type NS struct {
	handle netns.NsHandle
	path   string
	fake   *Fake // nil for a real one
}

// Open opens the namespace at a path such as /run/netns/x or /proc/7/ns/net. The error is ErrGone
// when nothing is there, or something that is not a namespace: a mount that was taken away leaves
// an empty file behind.
func Open(path string) (*NS, error) {
	handle, err := netns.GetFromPath(path)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("netns %s: %w", path, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("netns %s: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(handle), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		_ = handle.Close()
		return nil, fmt.Errorf("netns %s: %w", path, ErrGone)
	}
	return &NS{handle: handle, path: path}, nil
}

// New makes a namespace that nothing else holds: it goes when it is closed and nobody is in it.
// The caller stays where it is.
func New() (*NS, error) {
	var made *NS
	err := aside(func() error {
		handle, err := netns.New()
		if err != nil {
			return fmt.Errorf("netns new: %w", err)
		}
		made = &NS{handle: handle, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(handle))}
		return nil
	})
	return made, err
}

// FD is the file descriptor of the namespace; it stays the namespace's own.
func (n *NS) FD() int { return int(n.handle) }

// Path is where it was opened; for one that New made, a path that is good while this process lives
// and n is open.
func (n *NS) Path() string { return n.path }

// Do runs f inside the namespace. Sockets and processes that f makes stay in the namespace; f runs
// on a thread of its own, and goroutines which it starts are outside.
func (n *NS) Do(f func() error) error {
	if n.fake != nil {
		return f()
	}
	return aside(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("netns %s: enter: %w", n.path, err)
		}
		return f()
	})
}

// Close lets the namespace go.
func (n *NS) Close() error {
	if n.fake != nil {
		n.fake.closed(n)
		return nil
	}
	return n.handle.Close()
}

// Each does something in every namespace that a folder such as /run/netns names, whatever happens in others.
// Those that go meanwhile are passed over; where there is no folder there are none.
func Each(dir string, f func() error) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("namespaces: %w", err)
	}
	var errs []error
	for _, e := range entries {
		ns, err := Open(filepath.Join(dir, e.Name()))
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, ns.Do(f), ns.Close())
	}
	return errors.Join(errs...)
}

// aside runs f on a thread which is thrown away after: it is never unlocked, so the runtime ends
// it together with the goroutine, and no other goroutine can inherit its namespace.
func aside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("netns: the work ended its goroutine") // as t.FailNow does
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}
