package driver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

func address(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// socket is one that closes at once, without the minute of TIME_WAIT after it.
func socket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// try connects once. Only the connect itself is timed.
func try(to *unix.SockaddrInet4) (Outcome, time.Duration, error) {
	fd, err := socket(0)
	if err != nil {
		return Failed, 0, err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return Failed, 0, err
	}
	begin := time.Now()
	err = unix.Connect(fd, to)
	took := time.Since(begin)
	switch {
	case err == nil:
		return Open, took, nil
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused, took, nil
	}
	return Failed, took, nil
}

// connects goes to the targets and to those beside them in turn, so that whatever the machine does
// meanwhile is done to both.
func connects(j Job, random *rand.Rand) (Reply, error) {
	targets, beside := addresses(j.Targets), addresses(j.Beside)
	r := Reply{Outcomes: map[Outcome]int{}, Samples: make([]time.Duration, 0, j.Count), Beside: make([]time.Duration, 0, j.Count)}
	once := func(all []*unix.SockaddrInet4, samples *[]time.Duration) error {
		o, took, err := try(all[random.IntN(len(all))])
		if err != nil {
			return err
		}
		r.Outcomes[o]++
		*samples = append(*samples, took)
		return nil
	}
	for range j.Count {
		if err := once(targets, &r.Samples); err != nil {
			return r, err
		}
		if len(beside) == 0 {
			continue
		}
		if err := once(beside, &r.Beside); err != nil {
			return r, err
		}
	}
	return r, nil
}

func addresses(all []netip.AddrPort) (out []*unix.SockaddrInet4) {
	for _, a := range all {
		out = append(out, address(a))
	}
	return out
}

func sockets(j Job) (Reply, error) {
	var r Reply
	for range j.Count {
		begin := time.Now()
		fd, err := socket(0)
		if err != nil {
			return r, err
		}
		unix.Close(fd)
		r.Samples = append(r.Samples, time.Since(begin))
	}
	return r, nil
}

func clocks(j Job) (Reply, error) {
	r := Reply{Samples: make([]time.Duration, j.Count)}
	for i := range r.Samples {
		begin := time.Now()
		r.Samples[i] = time.Since(begin)
	}
	return r, nil
}

// await connects until the outcome is as wanted. Between connects it leaves the CPU to others.
func await(j Job) (Reply, error) {
	to, r := address(j.Targets[0]), Reply{Outcomes: map[Outcome]int{}}
	begin := Now()
	for {
		o, _, err := try(to)
		if err != nil {
			return r, err
		}
		r.Outcomes[o]++
		r.At = Now()
		r.Took = r.At - begin
		if o == j.Want {
			return r, nil
		}
		if r.Took > j.Length {
			return r, fmt.Errorf("%v is not %s after %v: %v", j.Targets[0], j.Want, j.Length, r.Outcomes)
		}
		pause := unix.NsecToTimespec(j.Pause.Nanoseconds()) // the kernel writes what is left of it
		if _, err := unix.Ppoll(nil, &pause, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return r, err
		}
	}
}
