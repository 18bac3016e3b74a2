//go:build kernel

package bpf

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// BenchmarkConnectRemembered tells what connect() costs through Services that remember the client, over a
// direct one, and what it costs to look at what is remembered.
func BenchmarkConnectRemembered(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			w := newWorld(b, 1)
			e := endpoints(1, false, 8080)
			e = append(e, netip.AddrPortFrom(e[0].Addr(), 8081))
			w.discard(b, e...)
			a := w.applier(b)
			want := map[model.Name][]service.Frontend{}
			for i := range n {
				f := front(netip.AddrPortFrom(serviceAddr(i, false), 80), model.TCP, e...)
				f.Affinity, f.Group = time.Hour, f.Key()
				want[f.Service] = []service.Frontend{f}
			}
			if err := a.Apply(want, true); err != nil {
				b.Fatal(err)
			}
			if _, err := a.Remembered(); err != nil { // and so pods are known
				b.Fatal(err)
			}
			w.in(b, w.ns, func() error {
				for i := range n { // to be left to nft, which is not here
					_, _ = connectOnce(unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: serviceAddr(i, false).As4()}, unix.AF_INET)
				}
				return nil
			})
			asked, err := a.Remembered()
			if err != nil || len(asked) != n {
				b.Fatal(len(asked), err)
			}
			now, err := a.Now()
			if err != nil {
				b.Fatal(err)
			}
			for i := range asked {
				asked[i].Backend, asked[i].Until = e[i%2], now+time.Hour
			}
			if err := a.Remember(asked, nil); err != nil {
				b.Fatal(err)
			}
			direct, through := w.interleave(b, unix.SOCK_STREAM, n, e[0])
			before := cpu(b)
			for range 10 {
				if _, err := a.Remembered(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(cpu(b)-before)/10, "cpu-ns/look")
			b.ReportMetric(float64(through[0]-direct[0]), "more-min-ns")
			b.ReportMetric(float64(through[len(through)/2]-direct[len(direct)/2]), "more-ns")
		})
	}
}
