//go:build kernel

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
)

// storm is some Services whose endpoints come and go. A life is odd while the endpoint may be led
// to, and even from when it was taken away until it comes again.
type storm struct {
	w     *world
	lives [stormServices][stormEach]atomic.Uint64
	over  atomic.Bool

	led, left atomic.Int64
}

const stormServices, stormEach = 4, 6

func (s *storm) service(i int) netip.AddrPort { return netip.AddrPortFrom(serviceAddr(i, false), 80) }

func (s *storm) endpoint(i, e int) netip.AddrPort {
	return netip.AddrPortFrom(endpointAddr(1+i*stormEach+e, false), 8080)
}

// Endpoints change as fast as they can while 16 threads connect: none is ever led to an endpoint of
// another Service, or to one that had gone before it asked.
func TestConnectsDuringAStorm(t *testing.T) {
	const changes, connects = 50_000, 20_000
	s := &storm{w: newWorld(t, stormServices*stormEach)}
	for i := range stormServices {
		for e := range stormEach {
			s.w.serve(t, s.endpoint(i, e))
		}
	}
	a := s.w.applier(t)
	apply(t, a)
	var threads sync.WaitGroup
	for n := range 16 {
		threads.Go(func() {
			defer s.over.Store(true)
			if err := s.w.ns.Do(func() error { return s.connect(n) }); err != nil {
				t.Error(err)
			}
		})
	}
	i := 0
	for ; (i < changes || s.led.Load() < connects) && !s.over.Load(); i++ {
		if err := s.change(a, i); err != nil {
			t.Error(err)
			break
		}
	}
	s.over.Store(true)
	threads.Wait()
	t.Logf("%d changes, %d led, %d left to the packet path", i, s.led.Load(), s.left.Load())
	if s.led.Load() < connects {
		t.Errorf("%d were led", s.led.Load())
	}
}

// change gives one Service other endpoints: now and then with weights, now and then none.
func (s *storm) change(a *Applier, i int) error {
	at := i % stormServices
	live := uint32(i) * 2654435761 >> 7 % (1 << stormEach)
	if i%97 == 0 {
		live = 0
	}
	var list []netip.AddrPort
	for e := range stormEach {
		if live&(1<<e) != 0 {
			list = append(list, s.endpoint(at, e))
			if l := &s.lives[at][e]; l.Load()%2 == 0 {
				l.Add(1)
			}
		}
	}
	f := front(s.service(at), model.UDP, list...)
	f.Keep = nil // all serve: sockets are not ended, for this is about connects
	for e := range stormEach {
		f.Keep = append(f.Keep, s.endpoint(at, e))
	}
	for b := range f.Backends {
		if i%5 == 0 {
			f.Backends[b].Share = float64(1 + b%3)
		}
	}
	if err := a.Update(all(f)); err != nil {
		return err
	}
	for e := range stormEach {
		if l := &s.lives[at][e]; live&(1<<e) == 0 && l.Load()%2 == 1 {
			l.Add(1)
		}
	}
	return nil
}

func (s *storm) connect(n int) error {
	for i := n; !s.over.Load(); i++ {
		at := i % stormServices
		var before [stormEach]uint64
		for e := range stormEach {
			before[e] = s.lives[at][e].Load()
		}
		got, err := whoAnswers(s.service(at))
		if errors.Is(err, unix.ENETUNREACH) {
			s.left.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		s.led.Add(1)
		right := false
		for e := range stormEach {
			if s.endpoint(at, e) == got {
				right = before[e]%2 == 1 || s.lives[at][e].Load() != before[e]
			}
		}
		if !right {
			return fmt.Errorf("%v was led to %v", s.service(at), got)
		}
	}
	return nil
}

// whoAnswers connects a UDP socket and asks.
func whoAnswers(to netip.AddrPort) (netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return netip.AddrPort{}, err
	}
	patience := unix.NsecToTimeval(int64(timeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := unix.Write(fd, []byte("who?")); err != nil {
		return netip.AddrPort{}, err
	}
	buf := make([]byte, 64)
	got, err := unix.Read(fd, buf)
	for errors.Is(err, unix.EINTR) { // a read with a time limit is not taken up again after a signal
		got, err = unix.Read(fd, buf)
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(strings.TrimSpace(string(buf[:got])))
}
