package driver

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// chunk is how many bytes are given to the kernel at a time; datagram is the size of small ones.
const (
	chunk    = 128 << 10
	datagram = 64
)

func stream(j Job) (Reply, error) {
	// Each worker blocks in the kernel, and must not wait for another's turn in Go.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(j.Workers + 1))
	var sent atomic.Uint64
	var group errgroup.Group
	begin := time.Now()
	for i := range j.Workers {
		group.Go(func() error {
			fd, err := socket(0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			limit := unix.NsecToTimeval(patience.Nanoseconds())
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
				return err
			}
			if err := unix.Connect(fd, address(j.Targets[i%len(j.Targets)])); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			data := make([]byte, chunk)
			for time.Since(begin) < j.Length {
				n, err := unix.Write(fd, data)
				if err != nil && !errors.Is(err, unix.EINTR) {
					return fmt.Errorf("send: %w", err)
				}
				sent.Add(uint64(max(n, 0)))
			}
			return nil
		})
	}
	err := group.Wait()
	return Reply{Done: sent.Load(), Took: time.Since(begin)}, err
}

func blast(j Job) (Reply, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Reply{}, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, address(j.Targets[0])); err != nil {
		return Reply{}, err
	}
	var r Reply
	data := make([]byte, datagram)
	begin := time.Now()
	for ; time.Since(begin) < j.Length; r.Done++ {
		if _, err := unix.Write(fd, data); err != nil {
			return r, fmt.Errorf("send: %w", err)
		}
	}
	r.Took = time.Since(begin)
	return r, nil
}
