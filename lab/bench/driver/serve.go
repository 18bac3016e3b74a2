package driver

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The ports of a server, at every address of its namespace.
const (
	AnswerPort = 8080 // answers short requests
	SinkPort   = 8081 // swallows TCP
	BlastPort  = 8082 // counts datagrams
)

// backlog is how many connections may wait to be taken; the kernel caps it by net.core.somaxconn.
const backlog = 1 << 15

// Serve answers, swallows and counts until no more jobs come in. Of jobs it knows Tell.
func Serve(in io.Reader, out io.Writer) error {
	answerer, err := listen(AnswerPort)
	if err != nil {
		return err
	}
	sink, err := listen(SinkPort)
	if err != nil {
		return err
	}
	count, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(count, &unix.SockaddrInet4{Port: BlastPort}); err != nil {
		return fmt.Errorf("port %d: %w", BlastPort, err)
	}
	var datagrams atomic.Uint64
	// The first that ends, ends the others: a server that is left in part would be silence to its clients.
	ended := make(chan error, 4)
	for _, part := range []func() error{
		func() error { return serve(answerer, true) },
		func() error { return serve(sink, false) },
		func() error { return counting(count, &datagrams) },
		func() error {
			return answer(in, out, func(Job) (Reply, error) { return Reply{Done: datagrams.Load()}, nil })
		},
	} {
		go func() { ended <- part() }()
	}
	return <-ended
}

func counting(socket int, datagrams *atomic.Uint64) error {
	buffer := make([]byte, 2048)
	for {
		if _, err := unix.Read(socket, buffer); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		datagrams.Add(1)
	}
}

func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return -1, fmt.Errorf("port %d: %w", port, err)
	}
	return fd, nil
}

// serve takes connections of one listener, reads from them, and answers if it shall.
func serve(listener int, answers bool) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	watch := func(fd int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := watch(listener); err != nil {
		return err
	}
	buffer, events := make([]byte, chunk), make([]unix.EpollEvent, 2*atOnce)
	for {
		n, err := unix.EpollWait(epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		more := false
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == listener {
				more = true
				continue
			}
			n, err := unix.Read(fd, buffer)
			if err == nil && n > 0 && answers {
				_, err = unix.Write(fd, []byte(response))
			}
			if err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN) {
				unix.Close(fd) // closed or broken by the client: either is its business
			}
		}
		if more { // after those that are here have gone
			if err := take(listener, watch); err != nil {
				return err
			}
		}
	}
}

// atOnce is how many connections are taken before those that were taken are looked at again: clients
// that were quick while this process had to wait have long closed theirs, and file descriptors are few.
const atOnce = 256

// take takes connections that wait.
func take(listener int, watch func(int) error) error {
	for range atOnce {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		default:
			if err := watch(fd); err != nil {
				return err
			}
		}
	}
	return nil
}
