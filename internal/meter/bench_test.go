package meter_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// BenchmarkFold is an agent's work each time it reads: 10,000 counters among 20,000 pods and 1,000 Services.
func BenchmarkFold(b *testing.B) {
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	o := meter.NewOwners(node("a", "a1"), time.Second)
	for i := range 20000 {
		o.Own(meter.Place{Addr: at(i)}, pod(string(rune('a'+i%3)), fmt.Sprint("n", i%200), "shop", fmt.Sprint("deployment/", i%500)), time.Second, 0)
	}
	for i := range 1000 {
		o.Serve(meter.Place{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80, Protocol: model.TCP},
			meter.Target{Service: model.Name{Namespace: "shop", Name: fmt.Sprint("s", i)}, Via: model.ViaClusterIP, Port: 80}, time.Second, 0)
	}
	before, now := reading(time.Minute, map[meter.Key]meter.Totals{}), reading(time.Minute+5*time.Second, map[meter.Key]meter.Totals{})
	for i := range 10000 {
		k := meter.Key{Client: at(i % 100), Dialled: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i % 1000 >> 8), byte(i % 1000)}), 80),
			Server: netip.AddrPortFrom(at(i*7%20000), 8080), Protocol: model.TCP, Side: meter.ClientEnd}
		before.Totals[k] = meter.Totals{FlowCount: bytes(1), Born: 1}
		now.Totals[k] = meter.Totals{FlowCount: bytes(1000), Born: 1}
	}
	b.ReportAllocs()
	for b.Loop() {
		if flows, _ := meter.Fold(before, now, o); len(flows) == 0 {
			b.Fatal("nothing")
		}
	}
}

// minute is what 5,000 nodes tell in a minute, 200 flows each, half of them from both ends.
func minute() []meter.Report {
	reports := make([]meter.Report, 5000)
	for i := range reports {
		name := fmt.Sprint("n", i)
		reports[i] = meter.Report{Node: name, Flows: make([]meter.Observed, 200)}
		for j := range reports[i].Flows {
			other := fmt.Sprint("n", (i+j*37)%5000)
			mine, theirs := pod(string(rune('a'+i%3)), name, "shop", fmt.Sprint("deployment/", j%20)), pod(string(rune('a'+j%3)), other, "shop", fmt.Sprint("deployment/", j%30))
			if j%2 == 0 {
				reports[i].Flows[j] = meter.Observed{Flow: flow(mine, theirs, fmt.Sprint("s", j%50), 1000, 5000), Observer: meter.AtClient}
			} else {
				reports[i].Flows[j] = meter.Observed{Flow: flow(theirs, mine, "", 1000, 5000), Observer: meter.AtServer}
			}
		}
	}
	return reports
}

// BenchmarkMerge is the controller's work in a minute.
func BenchmarkMerge(b *testing.B) {
	reports := minute()
	b.ReportAllocs()
	for b.Loop() {
		if m := meter.Merge(reports, meter.Metered{All: true}); len(m.Flows) == 0 {
			b.Fatal("nothing")
		}
	}
}

// BenchmarkLook is what it makes of the minute: matrix, Services, demand.
func BenchmarkLook(b *testing.B) {
	flows := meter.Merge(minute(), meter.Metered{All: true}).Flows
	tariff := series(b, meter.Era{Prices: book(b, "aws")}).Tariff(start, start.Add(time.Minute))
	demands := meter.NewDemands(meter.DefaultSmoothing())
	b.ReportAllocs()
	for b.Loop() {
		zones := meter.Zones(flows, tariff)
		lines := meter.Group(flows, meter.ByService, tariff, func(f model.Flow) meter.Reason { return meter.Why(f, meter.Routing{}) })
		demands.Add(start, time.Minute, flows)
		if len(zones) == 0 || len(lines) == 0 {
			b.Fatal("nothing")
		}
	}
}
