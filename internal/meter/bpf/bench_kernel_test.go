//go:build kernel

package bpf

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// busy is the processor time of this process, both ends and the kernel's work for them.
func busy(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sideBySide runs f with the meter off and on in turn, n times for each round, and reports the
// medians of both.
func (w *world) sideBySide(b *testing.B, n int, unit string, f func()) {
	b.Helper()
	c := w.start(b)
	var cpu, wall [2][]float64
	rounds := 0
	for b.Loop() {
		for _, on := range []int{rounds % 2, 1 - rounds%2} {
			if on == 1 {
				in(b, w.node, c.Attach)
			} else {
				c.detach(b)
			}
			f() // warm
			before, began := busy(b), time.Now()
			for range n {
				f()
			}
			wall[on] = append(wall[on], float64(time.Since(began))/float64(n))
			cpu[on] = append(cpu[on], float64(busy(b)-before)/float64(n))
		}
		rounds++
	}
	for on, name := range []string{"off", "on"} {
		slices.Sort(cpu[on])
		slices.Sort(wall[on])
		b.ReportMetric(cpu[on][rounds/2], name+"-cpu-ns/"+unit)
		b.ReportMetric(wall[on][rounds/2], name+"-ns/"+unit)
		b.ReportMetric(wall[on][rounds/10], name+"-p10-ns/"+unit)
	}
}

// detach takes the programs from their hooks.
func (c *Counter) detach(b *testing.B) {
	b.Helper()
	for name, l := range c.links {
		if err := errors.Join(os.Remove(c.linkPin(name)), l.Close()); err != nil {
			b.Fatal(err)
		}
		delete(c.links, name)
	}
}

// BenchmarkConnect is one connect() from a pod to another of the node, and its end by a reset.
func BenchmarkConnect(b *testing.B) {
	w := newWorld(b)
	w.rules(b)
	at := netip.AddrPortFrom(podAddr(1, false), 8080)
	var l net.Listener
	in(b, w.pods[1], func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	in(b, w.pods[0], func() error {
		to := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
		w.sideBySide(b, 250, "connect", func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			if err := unix.Connect(fd, to); err != nil {
				b.Fatal(err)
			}
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		})
		return nil
	})
}

// BenchmarkStream is 64 MiB from a pod to outside.
func BenchmarkStream(b *testing.B) {
	w := newWorld(b)
	w.rules(b)
	at := netip.AddrPortFrom(outsideAddr(false), 8080)
	var l net.Listener
	in(b, w.outside, func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	defer l.Close()
	got := make(chan int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, struct{ io.Reader }{c})
			c.Close()
			got <- n
		}
	}()
	buf := make([]byte, 1<<20)
	w.sideBySide(b, 1, "64MiB", func() {
		c := dial(b, w.pods[0], "tcp", at)
		for range 64 {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
		if n := <-got; n != 64<<20 {
			b.Fatal(n)
		}
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
