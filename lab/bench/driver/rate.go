package driver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// request and response of a short exchange.
const (
	request  = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
	response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// loop keeps a number of connections busy from one thread.
type loop struct {
	epoll   int
	targets []*unix.SockaddrInet4
	random  *rand.Rand
	request bool
	reply   Reply
	buffer  [512]byte
}

// rate is a closed loop: whenever a connection is done, the next begins.
func rate(j Job, random *rand.Rand) (Reply, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Reply{}, err
	}
	defer unix.Close(epoll)
	l := &loop{epoll: epoll, targets: addresses(j.Targets), random: random, request: j.Task == Request, reply: Reply{Outcomes: map[Outcome]int{}}}
	open := map[int]bool{}
	defer func() {
		for fd := range open {
			unix.Close(fd)
		}
	}()
	begin := time.Now()
	for range j.Workers {
		fd, err := l.begin()
		if err != nil {
			return l.reply, err
		}
		open[fd] = true
	}
	events := make([]unix.EpollEvent, j.Workers)
	for time.Since(begin) < j.Length {
		n, err := unix.EpollWait(epoll, events, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return l.reply, errors.Join(err, fmt.Errorf("%d of %d connections are ready after %v", n, j.Workers, patience))
		}
		for _, e := range events[:n] {
			fd := int(e.Fd)
			done, err := l.step(fd, e.Events)
			if err != nil {
				return l.reply, err
			}
			if !done {
				continue
			}
			delete(open, fd)
			unix.Close(fd)
			if fd, err = l.begin(); err != nil {
				return l.reply, err
			}
			open[fd] = true
		}
	}
	l.reply.Took = time.Since(begin)
	return l.reply, nil
}

func (l *loop) begin() (int, error) {
	fd, err := socket(unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, l.targets[l.random.IntN(len(l.targets))]); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// step takes a connection one step on, and tells whether it is done.
func (l *loop) step(fd int, events uint32) (done bool, err error) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return true, err
		}
		if unix.Errno(n) == unix.ECONNREFUSED {
			l.reply.Outcomes[Refused]++
		} else {
			l.reply.Outcomes[Failed]++
		}
		return true, nil
	}
	switch {
	case events&unix.EPOLLOUT != 0 && !l.request:
	case events&unix.EPOLLOUT != 0:
		if _, err := unix.Write(fd, []byte(request)); err != nil {
			return true, fmt.Errorf("request: %w", err)
		}
		return false, unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	default:
		n, err := unix.Read(fd, l.buffer[:])
		if err != nil || string(l.buffer[:n]) != response {
			return true, fmt.Errorf("answer %q: %w", l.buffer[:max(n, 0)], err)
		}
	}
	l.reply.Outcomes[Open]++
	l.reply.Done++
	return true, nil
}
