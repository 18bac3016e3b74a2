//go:build kernel

package bpf

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// The states that are measured side by side: nothing at the hooks; what stays there for good, with no
// program to jump to; and the meter.
const (
	off = iota
	stub
	on
	states
)

// become puts the node into a state.
func (c *Counter) become(b *testing.B, state int) {
	b.Helper()
	if state == off {
		if err := c.Detach(); err != nil {
			b.Fatal(err)
		}
		return
	}
	if err := c.Attach(); err != nil {
		b.Fatal(err)
	}
	for _, h := range hooks() {
		if state == stub {
			if err := c.objects.Maps[objectMapPrograms].Delete(h.index); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// sideBySide takes n samples of each state by turns, in as many rounds as it is given time for, and
// reports the tenth and the half of all: others on the machine can only add to a sample.
func (w *world) sideBySide(b *testing.B, c *Counter, n int, unit string, sample func() time.Duration) {
	b.Helper()
	var samples [states][]float64
	rounds := 0
	for b.Loop() {
		for i := range states {
			state := (i + rounds) % states
			in(b, w.node, func() error { c.become(b, state); return nil })
			for range n/10 + 1 {
				sample()
			}
			for range n {
				samples[state] = append(samples[state], float64(sample()))
			}
		}
		rounds++
	}
	for state, name := range []string{"off", "stub", "on"} {
		slices.Sort(samples[state])
		b.ReportMetric(samples[state][len(samples[state])/10], name+"-p10-ns/"+unit)
		b.ReportMetric(samples[state][len(samples[state])/2], name+"-p50-ns/"+unit)
	}
}

// swallow takes connections and what comes on them.
func swallow(b testing.TB, ns *netns.NS, at netip.AddrPort) {
	b.Helper()
	var l net.Listener
	in(b, ns, func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
			}()
		}
	}()
}

// BenchmarkConnect is one connect() from a pod to another of the node: SYN, SYN and ACK, ACK, all of
// them in the client's own time. Where there is a socket path the connection could be led.
func BenchmarkConnect(b *testing.B) {
	for _, led := range []bool{false, true} {
		b.Run(fmt.Sprintf("sockets=%v", led), func(b *testing.B) {
			w := newWorld(b)
			w.rules(b)
			if led {
				w.sockets(b)
			}
			c := w.start(b)
			at := netip.AddrPortFrom(podAddr(1, false), 8080)
			var l net.Listener
			in(b, w.pods[1], func() (err error) {
				l, err = net.Listen("tcp", at.String())
				return err
			})
			b.Cleanup(func() { l.Close() })
			to := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
			in(b, w.pods[0], func() error {
				w.sideBySide(b, c, 500, "connect", func() time.Duration { return connect(b, to, l) })
				return nil
			})
		})
	}
}

// connect times one connect, and ends it by a reset.
func connect(b *testing.B, to *unix.SockaddrInet4, l net.Listener) time.Duration {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	err = unix.Connect(fd, to)
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	unix.Close(fd)
	if c, err := l.Accept(); err == nil {
		c.Close()
	}
	return took
}

// onConnection times what f does on a connection from a pod to outside, without and with the socket path's maps.
func onConnection(b *testing.B, serve func(testing.TB, *netns.NS, netip.AddrPort), n int, unit string, size int, f func(net.Conn, []byte) error) {
	for _, led := range []bool{false, true} {
		b.Run(fmt.Sprintf("sockets=%v", led), func(b *testing.B) {
			w := newWorld(b)
			w.rules(b)
			if led {
				w.sockets(b)
			}
			at := netip.AddrPortFrom(outsideAddr(false), 8080)
			serve(b, w.outside, at)
			c := w.start(b)
			conn := dial(b, w.pods[0], "tcp", at)
			b.Cleanup(func() { conn.Close() })
			if err := conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, size)
			w.sideBySide(b, c, n, unit, func() time.Duration {
				began := time.Now()
				if err := f(conn, buf); err != nil {
					b.Fatal(err)
				}
				return time.Since(began)
			})
		})
	}
}

// BenchmarkStream is a MiB of a stream from a pod to outside.
func BenchmarkStream(b *testing.B) {
	onConnection(b, swallow, 100, "MiB", 1<<20, func(c net.Conn, buf []byte) error {
		_, err := c.Write(buf)
		return err
	})
}

// BenchmarkRoundTrip is a byte from a pod to outside and back, on a connection that is open.
func BenchmarkRoundTrip(b *testing.B) {
	onConnection(b, echo, 500, "trip", 1, func(c net.Conn, buf []byte) error {
		if _, err := c.Write(buf); err != nil {
			return err
		}
		_, err := io.ReadFull(c, buf)
		return err
	})
}

// BenchmarkPacket is what the programs take of each packet by the kernel's own clock, which it reads
// twice for that: connections that begin and end, and a stream's packets.
func BenchmarkPacket(b *testing.B) {
	w := newWorld(b)
	w.rules(b)
	w.servers(b)
	c := w.start(b)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	at := netip.AddrPortFrom(podAddr(1, false), 8080)
	for _, x := range []struct {
		name string
		f    func()
	}{
		{"connections", func() { ask(b, w.pods[0], "tcp", at, 1) }},
		{"stream", func() { ask(b, w.pods[0], "tcp", at, 4<<20) }},
		{"udp", func() { ask(b, w.pods[0], "udp", at, 100) }},
	} {
		b.Run(x.name, func(b *testing.B) {
			p := c.objects.Programs[objectProgAtLeaving]
			before, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				x.f()
			}
			after, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			n := float64(after.RunCount - before.RunCount)
			b.ReportMetric(float64(after.Runtime-before.Runtime)/n, "ns/packet")
			b.ReportMetric(n/float64(b.N), "packets/op")
			// Of the time that all of it took, which is what throughput can lose at most.
			b.ReportMetric(100*float64(after.Runtime-before.Runtime)/float64(b.Elapsed()), "%time")
		})
	}
}

// BenchmarkRead reads 10,000 counters.
func BenchmarkRead(b *testing.B) {
	w := newWorld(b)
	c := w.start(b)
	for i := range uint32(10_000) {
		o := owner{State: live, Born: 1, Key: key{Client: [16]byte{10, 1, byte(i >> 8), byte(i)}, Family: unix.AF_INET}}
		if err := c.objects.Maps[objectMapOwners].Put(i+1, &o); err != nil {
			b.Fatal(err)
		}
		if err := c.objects.Maps[objectMapCounters].Put(i+1, &counts{Connections: 1}); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.objects.Maps[objectMapGiven].Put(uint32(0), uint64(10_000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := c.Read()
		if err != nil || len(r.Totals) != 10_000 {
			b.Fatal(len(r.Totals), err)
		}
	}
}
