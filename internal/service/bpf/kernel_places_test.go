//go:build kernel

package bpf

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
)

// place is as in c/socket.c.
type place struct {
	Cookie uint64
	Pair   pair
}

func (a *Applier) places() bpf.Map[uint32, place] {
	return view[uint32, place](a.host.(*machine), objectMapPlaces)
}

// taken is how many places are.
func (a *Applier) taken(t *testing.T) int {
	t.Helper()
	n := 0
	if err := a.places().Each(func(_ []uint32, places []place) {
		for _, p := range places {
			if p.Cookie != 0 {
				n++
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// fill gives every place to a socket that does not exist; 0 gives them back.
func (a *Applier) fill(t *testing.T, cookie uint64) {
	t.Helper()
	m := a.places()
	keys := make([]uint32, m.Max())
	values := make([]place, len(keys))
	for i := range keys {
		keys[i], values[i].Cookie = uint32(i), cookie
	}
	if err := m.Put(keys, values); err != nil {
		t.Fatal(err)
	}
}

// open makes a socket.
func (w *world) open(t *testing.T, kind int) int {
	t.Helper()
	fd := -1
	w.in(t, w.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		return err
	})
	return fd
}

// connectFD connects a socket and returns what its peer is called.
func connectFD(t *testing.T, fd int, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	return peerName(t, fd)
}

func peerName(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	got, err := unix.Getpeername(fd)
	if err != nil {
		t.Fatal(err)
	}
	v4 := got.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port))
}

var kinds = map[string]int{"TCP": unix.SOCK_STREAM, "UDP": unix.SOCK_DGRAM}

// A socket leaves its place when it is closed, however that comes about, and not before.
func TestPlacesAreLeft(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			backends := endpoints(1, false, 8080)
			w.serve(t, backends...)
			at := netip.AddrPortFrom(serviceAddr(1, false), 80)
			a := w.applier(t)
			apply(t, a, front(at, model.TCP, backends...), front(at, model.UDP, backends...))
			check := func(what string, want int) {
				t.Helper()
				if got := a.taken(t); got != want {
					t.Errorf("%s: %d places are taken, want %d", what, got, want)
				}
			}
			closing := func(fd int) {
				t.Helper()
				if err := unix.Close(fd); err != nil {
					t.Error(err)
				}
			}
			fd := w.open(t, kind)
			connectFD(t, fd, at)
			check("connected", 1)
			closing(fd)
			check("closed", 0)

			fd = w.open(t, kind)
			connectFD(t, fd, backends[0])
			check("connected directly", 0)
			closing(fd)

			w.heldByAProcess(t, kind, at, check)

			dying := filepath.Join(w.options.Cgroup, "dying")
			if err := os.Mkdir(dying, 0o755); err != nil {
				t.Fatal(err)
			}
			move(t, dying)
			fd = w.open(t, kind)
			move(t, w.options.Cgroup)
			if err := os.Remove(dying); err != nil {
				t.Fatal(err)
			}
			if got := connectFD(t, fd, at); got != at {
				t.Errorf("of a cgroup that is no more: the peer is %v, want %v", got, at)
			}
			check("of a cgroup that is no more", 1)
			closing(fd)
			check("of a cgroup that is no more, closed", 0)
		})
	}
}

// heldByAProcess lets another process have a socket alone, and kills it.
func (w *world) heldByAProcess(t *testing.T, kind int, at netip.AddrPort, check func(string, int)) {
	t.Helper()
	fd := w.open(t, kind)
	connectFD(t, fd, at)
	f := os.NewFile(uintptr(fd), "socket")
	holder := exec.Command("cat") // waits for its input
	holder.ExtraFiles = []*os.File{f}
	input, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	if err := errors.Join(holder.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	check("held by another process", 1)
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	check("killed", 0)
}

// move moves the test's process to a cgroup.
func move(t *testing.T, cgroup string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		t.Fatal(err)
	}
}

// Sockets that find their places taken are led all the same, and know their peer when they connect
// again, from one keeping to the other.
func TestPlacesAreTaken(t *testing.T) {
	const nobody = 1 << 63
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			backends := endpoints(2, false, 8080)
			w.serve(t, backends...)
			at := func(i int) netip.AddrPort { return netip.AddrPortFrom(serviceAddr(i, false), 80) }
			a := w.applier(t)
			apply(t, a, front(at(0), model.TCP, backends...), front(at(0), model.UDP, backends...),
				front(at(1), model.TCP, backends...), front(at(1), model.UDP, backends...))
			fd := w.open(t, kind)
			defer unix.Close(fd)
			for i, step := range []struct {
				full bool
				to   netip.AddrPort
			}{
				{true, at(0)}, {true, at(1)}, {false, at(0)}, {false, at(1)}, {true, at(0)},
				{true, backends[0]}, {false, backends[1]}, {false, at(1)}, {false, backends[0]},
			} {
				a.fill(t, 0)
				if step.full {
					a.fill(t, nobody)
				}
				if i > 0 && kind == unix.SOCK_STREAM { // TCP connects again after it has disconnected
					if err := disconnectFD(fd); err != nil {
						t.Fatal(err)
					}
				}
				if got := connectFD(t, fd, step.to); got != step.to {
					t.Errorf("step %d, places full %v: connected to %v, the peer is %v", i, step.full, step.to, got)
				}
			}
			if got := a.taken(t); got != 0 {
				t.Errorf("connected directly in the end: %d places are taken", got)
			}
		})
	}
}

// A connected UDP socket is ended wherever its origin is kept.
func TestUDPIsEndedWherePlacesAreTaken(t *testing.T) {
	for name, cookie := range map[string]uint64{"in a place": 0, "with the socket": 1 << 63} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			backends := endpoints(2, false, 53)
			w.serve(t, backends...)
			at := netip.AddrPortFrom(serviceAddr(1, false), 53)
			a := w.applier(t)
			apply(t, a, front(at, model.UDP, backends[0]))
			a.fill(t, cookie)
			c, err := w.dial("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			apply(t, a, front(at, model.UDP, backends[1]))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("got %v, want ECONNABORTED", err)
			}
		})
	}
}

// disconnectFD is connect() to AF_UNSPEC, which package unix does not know.
func disconnectFD(fd int) error {
	nowhere := [16]byte{}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), uintptr(len(nowhere)))
	if errno != 0 {
		return errno
	}
	return nil
}
