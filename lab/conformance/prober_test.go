//go:build kernel

package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/rig"
)

// A probe asks for one thing of a prober. Sockets that stay open have a number.
type probe struct {
	Do       string // ask; open, send, connect, close
	Space    string // path of a network namespace
	Protocol int    // 6 or 17
	Source   netip.Addr
	To       netip.AddrPort
	Connect  bool          // UDP: connect the socket
	Patience time.Duration // for one answer
	Times    int           // ask: so many sockets, one after the other
	Socket   int
}

// An outcome is what came of one question.
type outcome struct {
	Error  string         // refused, silence or another; empty: answered
	Server netip.AddrPort // as the server knows itself
	Seen   netip.AddrPort // the client, as the server saw it
	Peer   netip.AddrPort // the server, as the client sees it
	Local  netip.AddrPort // the client, as it knows itself
	Took   time.Duration
}

type reply struct {
	Outcomes []outcome
	Socket   int
	Error    string
}

const (
	refused = "refused"
	silence = "silence"
)

// prober opens sockets in network namespaces, on behalf of tests. It is a process of its own where
// its sockets have to be in another cgroup than the test is.
type prober interface{ do(probe) (reply, error) }

// here does it in this process.
type here struct {
	mu      sync.Mutex
	spaces  map[string]*netns.NS
	sockets map[int]socket
	last    int
}

type socket struct {
	fd    int
	probe probe
}

func newHere() *here { return &here{spaces: map[string]*netns.NS{}, sockets: map[int]socket{}} }

func (h *here) do(p probe) (reply, error) {
	ns, err := h.space(p.Space)
	if err != nil {
		return reply{}, err
	}
	var out reply
	err = ns.Do(func() (err error) {
		out, err = h.inside(p)
		return err
	})
	return out, err
}

func (h *here) space(path string) (*netns.NS, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ns, ok := h.spaces[path]; ok {
		return ns, nil
	}
	ns, err := netns.Open(path)
	if err == nil {
		h.spaces[path] = ns
	}
	return ns, err
}

func (h *here) inside(p probe) (reply, error) {
	switch p.Do {
	case "ask":
		var out reply
		for range p.Times {
			fd, err := open(p)
			if err != nil {
				return out, err
			}
			got := exchange(fd, p)
			_ = unix.Close(fd)
			out.Outcomes = append(out.Outcomes, got)
			if got.Error != "" {
				break
			}
		}
		return out, nil
	case "open":
		fd, err := open(p)
		if err != nil {
			return reply{}, err
		}
		if p.Connect || p.Protocol == unix.IPPROTO_TCP {
			if err := connect(fd, p.To); err != nil {
				_ = unix.Close(fd)
				return reply{Outcomes: []outcome{{Error: failure(err)}}}, nil
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.last++
		h.sockets[h.last] = socket{fd, p}
		return reply{Socket: h.last, Outcomes: []outcome{{}}}, nil
	case "send", "connect", "close":
		h.mu.Lock()
		s, ok := h.sockets[p.Socket]
		h.mu.Unlock()
		if !ok {
			return reply{}, fmt.Errorf("no socket %d", p.Socket)
		}
		if p.Do == "connect" {
			// What ended the connection before is not to be heard of again.
			_, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			return reply{}, errors.Join(err, connect(s.fd, s.probe.To))
		}
		if p.Do == "close" {
			h.mu.Lock()
			delete(h.sockets, p.Socket)
			h.mu.Unlock()
			return reply{}, unix.Close(s.fd)
		}
		to := s.probe
		to.Patience = p.Patience
		if p.To.IsValid() {
			to.To = p.To
		}
		if err := patience(s.fd, to.Patience); err != nil {
			return reply{}, err
		}
		return reply{Outcomes: []outcome{converse(s.fd, to, time.Now())}}, nil
	}
	return reply{}, fmt.Errorf("no such probe: %s", p.Do)
}

// open makes a socket that waits as long as the probe says, and no longer.
func open(p probe) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if p.To.Addr().Is6() {
		family = unix.AF_INET6
	}
	if p.Protocol == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := patience(fd, p.Patience); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	if p.Source.IsValid() {
		if err := unix.Bind(fd, address(netip.AddrPortFrom(p.Source, 0))); err != nil {
			return 0, errors.Join(fmt.Errorf("bind %s: %w", p.Source, err), unix.Close(fd))
		}
	}
	return fd, nil
}

func patience(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

// exchange connects a new socket where it has to be, asks and hears the answer.
func exchange(fd int, p probe) outcome {
	begin := time.Now()
	if p.Protocol == unix.IPPROTO_TCP || p.Connect {
		if err := connect(fd, p.To); err != nil {
			return outcome{Error: failure(err)}
		}
	}
	return converse(fd, p, begin)
}

func converse(fd int, p probe, begin time.Time) outcome {
	var to unix.Sockaddr
	if p.Protocol == unix.IPPROTO_UDP && !p.Connect {
		to = address(p.To)
	}
	err := send(fd, to)
	// A filter on the client's own machine says so at once; what the client is to hear comes after.
	if err != nil && !(p.Protocol == unix.IPPROTO_UDP && errors.Is(err, unix.EPERM)) {
		return outcome{Error: failure(err)}
	}
	buf := make([]byte, 512)
	var n int
	var from unix.Sockaddr
	err = whole(func() (err error) {
		n, from, err = unix.Recvfrom(fd, buf, 0)
		return err
	})
	if err != nil {
		return outcome{Error: failure(err), Local: local(fd)}
	}
	out := outcome{Took: time.Since(begin), Local: local(fd)}
	words := strings.Fields(string(buf[:n]))
	if len(words) != 2 {
		return outcome{Error: fmt.Sprintf("answer %q", buf[:n])}
	}
	out.Server, out.Seen = netip.MustParseAddrPort(words[0]), netip.MustParseAddrPort(words[1])
	if to == nil {
		if from, err = unix.Getpeername(fd); err != nil {
			return outcome{Error: err.Error()}
		}
	}
	out.Peer = addrPort(from)
	return out
}

func send(fd int, to unix.Sockaddr) error {
	return whole(func() error {
		question := []byte("who?\n")
		if to != nil {
			return unix.Sendto(fd, question, 0, to)
		}
		return unix.Send(fd, question, unix.MSG_NOSIGNAL)
	})
}

func connect(fd int, to netip.AddrPort) error {
	return whole(func() error { return unix.Connect(fd, address(to)) })
}

// whole repeats a call that Go's own signals interrupted.
func whole(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func failure(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return refused
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.ETIMEDOUT):
		return silence
	}
	return err.Error()
}

func local(fd int) netip.AddrPort {
	a, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(a)
}

func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch a := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// proberVariable makes of this program a prober that is spoken to by its standard input.
const proberVariable = "ZONEWISE_CONFORMANCE_PROBER"

func serveProbes(in io.Reader, out io.Writer) error {
	h, asked, answers := newHere(), json.NewDecoder(in), json.NewEncoder(out)
	for {
		var p probe
		if err := asked.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		got, err := h.do(p)
		if err != nil {
			got.Error = err.Error()
		}
		if err := answers.Encode(got); err != nil {
			return err
		}
	}
}

// there is a prober in a process of its own, which is in the world's cgroup.
type there struct {
	mu      sync.Mutex
	asked   *json.Encoder
	answers *json.Decoder
}

// startThere starts one, and returns what ends it.
func startThere(w *rig.World) (*there, func() error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := w.Command(w.Node, self)
	cmd.Env = append(os.Environ(), proberVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	end := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	return &there{asked: json.NewEncoder(in), answers: json.NewDecoder(out)}, end, nil
}

func (r *there) do(p probe) (reply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.asked.Encode(p); err != nil {
		return reply{}, err
	}
	var got reply
	if err := r.answers.Decode(&got); err != nil {
		return reply{}, err
	}
	if got.Error != "" {
		return got, errors.New(got.Error)
	}
	return got, nil
}
