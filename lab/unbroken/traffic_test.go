//go:build kernel

package unbroken

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// trafficVariable makes of this program a client that is spoken to by its standard input.
const trafficVariable = "ZONEWISE_UNBROKEN_TRAFFIC"

// How often each open flow says something, and how long an answer may take on a busy machine.
const (
	pace     = time.Second
	patience = 15 * time.Second
	slow     = time.Second // is worth a line
)

// job is what a client does until its input ends.
type job struct {
	TCP, UDP []netip.AddrPort // one flow each
	New      []netip.AddrPort // by turns, new connections; every fourth by UDP where NewUDP has it
	NewUDP   []netip.AddrPort
	Rate     int // new connections in a second
}

// report is what became of it.
type report struct {
	Flows, Echoes int
	Broken, Slow  []string // flows
	SlowestEcho   time.Duration
	// Moved are UDP flows, of sockets that are not connected, which another server answers from some
	// time on. Ended are connected UDP sockets that were told that their connection is no more.
	Moved, Ended int

	Connects, Datagrams int // new connections, and of these those by UDP
	Failed              []string
	Again               int // connections whose first packet had to be sent again
	SlowestConnect      time.Duration
	// Landed are the times at which connects began, Unix nanoseconds, by the server that they reached.
	Landed map[netip.Addr][]int64
}

func (r *report) add(o report) {
	r.Flows, r.Echoes, r.Connects, r.Datagrams, r.Again = r.Flows+o.Flows, r.Echoes+o.Echoes, r.Connects+o.Connects, r.Datagrams+o.Datagrams, r.Again+o.Again
	r.Broken, r.Failed, r.Slow = append(r.Broken, o.Broken...), append(r.Failed, o.Failed...), append(r.Slow, o.Slow...)
	r.Moved, r.Ended = r.Moved+o.Moved, r.Ended+o.Ended
	r.SlowestEcho, r.SlowestConnect = max(r.SlowestEcho, o.SlowestEcho), max(r.SlowestConnect, o.SlowestConnect)
	for server, times := range o.Landed {
		if r.Landed == nil {
			r.Landed = map[netip.Addr][]int64{}
		}
		r.Landed[server] = append(r.Landed[server], times...)
	}
}

// client is one that works.
type client struct {
	mu sync.Mutex
	report
	flows, connects sync.WaitGroup
}

// traffic reads a job, says when all of its flows are open, and reports when the input ends.
func traffic(in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(1) // there are several of us, and others have work to do
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	c := &client{report: report{Landed: map[netip.Addr][]int64{}}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	opened := make(chan error)
	for i, to := range j.TCP {
		go c.flow(ctx, opened, to, openTCP, i)
	}
	for i, to := range j.UDP {
		open := openUDP
		if i%2 == 1 {
			open = openUnconnected
		}
		go c.flow(ctx, opened, to, open, i)
	}
	var errs []error
	for range len(j.TCP) + len(j.UDP) {
		errs = append(errs, <-opened)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode("open"); err != nil {
		return err
	}
	c.connects.Add(1)
	go c.connect(ctx, j)
	_, err = io.Copy(io.Discard, lines) // until it ends
	stop()
	c.connects.Wait()
	c.flows.Wait()
	return errors.Join(err, json.NewEncoder(out).Encode(c.report))
}

// echo is a flow: what is said comes back, with the server's name.
type echo interface {
	say(text string) (server, answer string, err error)
	Close() error
}

// flow opens a flow and keeps it busy. It is broken when an answer does not come, or is wrong, or is
// another server's, unless the report has a word for that. Of UDP nothing is sent again: what is lost is broken.
func (c *client) flow(ctx context.Context, opened chan<- error, to netip.AddrPort, open func(netip.AddrPort) (echo, error), number int) {
	c.flows.Add(1)
	defer c.flows.Done()
	e, err := open(to)
	if err != nil {
		opened <- err
		return
	}
	defer e.Close()
	first, _, err := e.say("0")
	opened <- err
	if err != nil {
		return
	}
	c.mu.Lock()
	c.Flows++
	c.mu.Unlock()
	// Not all at once.
	delay := time.Duration(number) * 7919 * time.Microsecond % pace
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = pace
		begin, said := time.Now(), fmt.Sprint(i)
		server, answer, err := e.say(said)
		c.mu.Lock()
		c.Echoes++
		c.SlowestEcho = max(c.SlowestEcho, time.Since(begin))
		if took := time.Since(begin); took > slow {
			c.Slow = append(c.Slow, fmt.Sprintf("%T, begun %s: %v", e, begin.Format("15:04:05.000"), took.Round(time.Millisecond)))
		}
		_, unconnected := e.(unconnectedEcho)
		_, connected := e.(connectedEcho)
		switch {
		case unconnected && err == nil && server != first && answer == said:
			c.Moved++
			first = server
		case connected && (errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EDESTADDRREQ)): // it was reading, or came back to write
			c.Ended++
			c.mu.Unlock()
			return
		case err != nil || server != first || answer != said:
			c.Broken = append(c.Broken, fmt.Sprintf("%T to %s at %s, begun %s, echo %d: %q by %s: %v", e, to, first, begin.Format("15:04:05.000"), i, answer, server, err))
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

type tcpEcho struct {
	net.Conn
	lines *bufio.Reader
}

func openTCP(to netip.AddrPort) (echo, error) {
	conn, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		return nil, err
	}
	return tcpEcho{conn, bufio.NewReader(conn)}, nil
}

func (e tcpEcho) say(text string) (server, answer string, err error) {
	if err := e.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", "", err
	}
	if _, err := fmt.Fprintln(e, text); err != nil {
		return "", "", err
	}
	line, err := e.lines.ReadString('\n')
	server, answer, _ = strings.Cut(strings.TrimSpace(line), " ")
	return server, answer, err
}

type connectedEcho struct{ net.Conn }

func openUDP(to netip.AddrPort) (echo, error) {
	conn, err := net.Dial("udp", to.String())
	return connectedEcho{conn}, err
}

func (e connectedEcho) say(text string) (server, answer string, err error) {
	if err := e.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", "", err
	}
	if _, err := io.WriteString(e, text); err != nil {
		return "", "", err
	}
	buf := make([]byte, 128)
	n, err := e.Read(buf)
	server, answer, _ = strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return server, answer, err
}

// unconnectedEcho says each time to whom, as resolvers do.
type unconnectedEcho struct {
	*net.UDPConn
	to netip.AddrPort
}

func openUnconnected(to netip.AddrPort) (echo, error) {
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	return unconnectedEcho{conn, to}, err
}

func (e unconnectedEcho) say(text string) (server, answer string, err error) {
	if err := e.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", "", err
	}
	if _, err := e.WriteToUDPAddrPort([]byte(text), e.to); err != nil {
		return "", "", err
	}
	buf := make([]byte, 128)
	n, from, err := e.ReadFromUDPAddrPort(buf)
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); err == nil && from != e.to {
		err = fmt.Errorf("it came from %s", from)
	}
	server, answer, _ = strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return server, answer, err
}

// connect opens new connections at the rate until it is told to stop.
func (c *client) connect(ctx context.Context, j job) {
	defer c.connects.Done()
	const beat = 20 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	begin := time.Now()
	for made := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(begin).Seconds() * float64(j.Rate)); made < due; made++ {
			protocol, to := "tcp", j.New[made%len(j.New)]
			if made%4 == 3 && len(j.NewUDP) > 0 {
				protocol, to = "udp", j.NewUDP[made/4%len(j.NewUDP)]
			}
			c.connects.Go(func() { c.once(protocol, to) })
		}
	}
}

// once makes a connection, asks who answers, and notes it.
func (c *client) once(protocol string, to netip.AddrPort) {
	begin := time.Now()
	server, again, err := ask(protocol, to, patience)
	took := time.Since(begin)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Connects++
	if protocol == "udp" {
		c.Datagrams++
	}
	if again {
		c.Again++
	}
	if err != nil {
		c.Failed = append(c.Failed, fmt.Sprintf("%s to %s, begun %s: %v", protocol, to, begin.Format("15:04:05.000"), err))
		return
	}
	c.SlowestConnect = max(c.SlowestConnect, took)
	c.Landed[server] = append(c.Landed[server], begin.UnixNano())
}

// ask makes a new connection, and tells who answers and whether its first packet had to be sent again.
func ask(protocol string, to netip.AddrPort, patience time.Duration) (server netip.Addr, again bool, err error) {
	conn, err := net.DialTimeout(protocol, to.String(), patience)
	if err != nil {
		return server, false, err
	}
	defer conn.Close()
	var e echo = connectedEcho{conn}
	if t, ok := conn.(*net.TCPConn); ok {
		e = tcpEcho{conn, bufio.NewReader(conn)}
		if again, err = retransmitted(t); err != nil {
			return server, again, err
		}
		// It ends by a reset, and keeps no port busy.
		if err := t.SetLinger(0); err != nil {
			return server, again, err
		}
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return server, again, err
	}
	name, _, err := e.say("who")
	if err != nil {
		return server, again, err
	}
	at, err := netip.ParseAddrPort(name)
	return at.Addr(), again, err
}

func retransmitted(conn *net.TCPConn) (again bool, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, failed); err != nil {
		return false, err
	}
	return info.Total_retrans > 0, nil
}

// serve answers on TCP and UDP at an address of the namespace that the calling thread is in.
func serve(at string) (end func() error, err error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenPacket("udp", at)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := u.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		return nil, errors.Join(err, l.Close(), u.Close())
	}
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a client that did not wait
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintf(conn, "%s %s\n", at, lines.Text())
				}
			}()
		}
	}()
	go func() {
		for buf := make([]byte, 128); ; {
			n, from, err := u.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = u.WriteTo(fmt.Appendf(nil, "%s %s", at, buf[:n]), from) // it may have gone
			}
		}
	}()
	return func() error { return errors.Join(l.Close(), u.Close()) }, nil
}

// asChild does what the environment asks of this program, if anything.
func asChild() (did bool) {
	if os.Getenv(trafficVariable) == "" {
		return false
	}
	if err := traffic(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
	return true
}
