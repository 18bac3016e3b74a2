package meter_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func book(t interface{ Fatal(...any) }, name string) model.Prices {
	p, ok := route.Book(name)
	if !ok {
		t.Fatal("no book ", name)
	}
	return p
}

func series(t interface{ Fatal(...any) }, eras ...meter.Era) meter.Series {
	s, err := meter.NewSeries(eras...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b), 1e-6) }

// What clouds charge for a request of 1 GB and a response of 3 GB between two zones.
func TestClouds(t *testing.T) {
	a, b := pod("a", "a1", "shop", "deployment/web"), pod("b", "b1", "shop", "deployment/db")
	custom := model.Prices{Name: "ours", PerGB: 0.03, Receiver: 1, Pairs: map[model.ZonePair]float64{{From: "b", To: "a"}: 0.5}}
	for _, c := range []struct {
		prices         model.Prices
		client, server model.Party
		want           meter.Money
	}{
		{book(t, "aws"), a, b, meter.Money{Client: 0.04, Server: 0.04}}, // 0.01 for each GB sent, and for each received
		{book(t, "gcp"), a, b, meter.Money{Client: 0.01, Server: 0.03}}, // for each GB sent alone
		{book(t, "azure"), a, b, meter.Money{}},
		{custom, a, b, meter.Money{Client: 0.09, Server: 0.03}},
		{custom, b, a, meter.Money{Client: 1.5, Server: 0.5}},
		{book(t, "aws"), a, a, meter.Money{}},
		{book(t, "aws"), a, model.Party{Kind: model.Outside, Block: "internet"}, meter.Money{}},
		{book(t, "aws"), model.Party{Kind: model.Unknown}, b, meter.Money{}},
		{book(t, "aws"), model.Party{Kind: model.Outside, Zone: "a", Node: "a1"}, b, meter.Money{Client: 0.04, Server: 0.04}}, // passed on by a node in a
		{model.Prices{}, a, b, meter.Money{}},
	} {
		got := series(t, meter.Era{Prices: c.prices}).Tariff(start, start.Add(time.Minute)).Cost(flow(c.client, c.server, "db", 1e9, 3e9))
		if !near(got.Client, c.want.Client) || !near(got.Server, c.want.Server) {
			t.Errorf("%s, %v to %v: %+v, want %+v", c.prices.Name, c.client, c.server, got, c.want)
		}
	}
	// The figure that is told everywhere: 1 GB/s over 3 zones at random is 420,000 USD a year.
	f := flow(a, b, "db", 1e9, 0)
	year := meter.PerMonth(series(t, meter.Era{Prices: book(t, "aws")}).Tariff(start, start).Cost(f).USD(), time.Second) * 12 * 2 / 3
	if year < 415000 || year > 425000 {
		t.Error(year)
	}
	if meter.PerMonth(1, 0) != 0 || meter.PerMonth(1, time.Hour) != 730 {
		t.Error("months")
	}
}

// A change of price splits time at that instant.
func TestPricesChange(t *testing.T) {
	hour := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	s := series(t, meter.Era{From: hour(6), Prices: model.Prices{PerGB: 4}}, meter.Era{Prices: model.Prices{PerGB: 1}}, meter.Era{From: hour(2), Prices: model.Prices{PerGB: 2}})
	f := flow(pod("a", "a1", "x", "y"), pod("b", "b1", "x", "z"), "", 1e9, 0)
	for _, c := range []struct {
		from, to int
		want     float64
	}{{0, 1, 1}, {0, 2, 1}, {2, 3, 2}, {1, 3, 1.5}, {0, 8, (2*1 + 4*2 + 2*4) / 8.0}, {7, 9, 4}, {2, 2, 2}, {5, 4, 2}, {-100, -50, 1}} {
		if got := s.Tariff(hour(c.from), hour(c.to)).Cost(f).USD(); !near(got, c.want) {
			t.Errorf("%d to %d: %g, want %g", c.from, c.to, got, c.want)
		}
	}
	var none meter.Series
	if got := none.Tariff(hour(0), hour(1)).Cost(f); got != (meter.Money{}) {
		t.Error(got)
	}
}

func TestBadSeries(t *testing.T) {
	ok := model.Prices{Name: "ok", PerGB: 1}
	for want, eras := range map[string][]meter.Era{
		"price book ok: from 2026-03-01T12:00:00Z: no book holds before it": {{From: start, Prices: ok}},
		"price books ok and ok: both from the beginning":                    {{Prices: ok}, {Prices: ok}},
		"price books ok and ok: both from 2026-03-01T12:00:00Z":             {{Prices: ok}, {From: start, Prices: ok}, {From: start.In(time.FixedZone("JST", 9*3600)), Prices: ok}},
		"price book bad: perGB: -1 is negative":                             {{Prices: ok}, {From: start, Prices: model.Prices{Name: "bad", PerGB: -1}}},
		"price book bad: receiver: 2 is more than 1, the whole price":       {{Prices: model.Prices{Name: "bad", Receiver: 2}}},
		"price book bad: receiver: not a number":                            {{Prices: model.Prices{Name: "bad", Receiver: math.NaN()}}},
		"price book bad: pair a to b: perGB: -1 is negative":                {{Prices: model.Prices{Name: "bad", Pairs: map[model.ZonePair]float64{{From: "a", To: "b"}: -1}}}},
		"price book bad: pair a to b: perGB: not a finite number":           {{Prices: model.Prices{Name: "bad", Pairs: map[model.ZonePair]float64{{From: "a", To: "b"}: math.Inf(1)}}}},
	} {
		if _, err := meter.NewSeries(eras...); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// someFlows draws flows between four zones, one without a name, and outside.
func someFlows(t *rapid.T) []model.Flow {
	party := func(name string) model.Party {
		return rapid.SampledFrom([]model.Party{
			pod("a", "a1", "shop", "deployment/web"), pod("b", "b1", "shop", "deployment/web"), pod("c", "c1", "stock", "deployment/db"), pod("", "x1", "stock", "deployment/db"),
			node("a", "a1"), {Kind: model.Outside, Block: "internet"}, {Kind: model.Outside, Block: "internet", Zone: "b", Node: "b1"}, {Kind: model.Unknown}, {Kind: model.Unknown, Zone: "c"},
		}).Draw(t, name)
	}
	out := make([]model.Flow, rapid.IntRange(0, 12).Draw(t, "flows"))
	for i := range out {
		out[i] = flow(party("client"), party("server"), rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "service"), rapid.Uint64Range(0, 1e12).Draw(t, "there"), rapid.Uint64Range(0, 1e12).Draw(t, "back"))
		out[i].RequestExtra, out[i].ResponseExtra = 1, 2
	}
	return out
}

// However flows are looked at, by zone or by name, in one piece or in two, they have the same bytes and
// cost the same.
func TestSumsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flows := someFlows(t)
		at := func(name string) time.Time {
			return start.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, name)) * time.Second)
		}
		price := func(name string) model.Prices {
			return model.Prices{PerGB: float64(rapid.IntRange(0, 10).Draw(t, name)), Receiver: float64(rapid.IntRange(0, 4).Draw(t, "receiver")) / 4,
				Pairs: map[model.ZonePair]float64{{From: "a", To: "b"}: float64(rapid.IntRange(0, 10).Draw(t, name))}}
		}
		change := at("change")
		s := series(t, meter.Era{Prices: price("before")}, meter.Era{From: change, Prices: price("after")})
		from, to := start, at("end")
		whole := s.Tariff(from, to)

		var bytes, extra uint64
		var cost meter.Money
		for _, f := range flows {
			bytes += f.Bytes()
			extra += f.RequestExtra + f.ResponseExtra
			m := whole.Cost(f)
			cost.Add(m)
			if c, sv := f.Client.Zone, f.Server.Zone; !meter.Crosses(f.FlowKey) && m != (meter.Money{}) || m.Client < 0 || m.Server < 0 {
				t.Fatalf("%q to %q costs %v", c, sv, m)
			}
		}
		var zoneBytes, zoneExtra uint64
		var zoneUSD float64
		for _, z := range meter.Zones(flows, whole) {
			zoneBytes, zoneExtra, zoneUSD = zoneBytes+z.Bytes, zoneExtra+z.Extra, zoneUSD+z.USD
		}
		if zoneBytes != bytes || zoneExtra != extra || !near(zoneUSD, cost.USD()) {
			t.Fatalf("by zone %d, %d, %g; there are %d, %d, %g", zoneBytes, zoneExtra, zoneUSD, bytes, extra, cost.USD())
		}
		why := func(f model.Flow) meter.Reason { return meter.Why(f, meter.Routing{}) }
		team := meter.ByLabel(func(ns string) string { return strings.TrimPrefix(ns, "stock") })
		for _, by := range []meter.By{meter.ByService, meter.ByClient, meter.ByServer, meter.ByNamespace, meter.ByFlow, team} {
			var all meter.Traffic
			for _, l := range meter.Group(flows, by, whole, why) {
				all.FlowCount.Add(l.FlowCount)
				all.Money.Add(l.Money)
				all.InZone, all.CrossZone, all.Outside, all.Unknown = all.InZone+l.InZone, all.CrossZone+l.CrossZone, all.Outside+l.Outside, all.Unknown+l.Unknown
				var crossed uint64
				for _, r := range l.Reasons {
					crossed += r.Bytes
				}
				if crossed != l.CrossZone {
					t.Fatalf("%s: %d bytes crossed, reasons for %d", l.Name, l.CrossZone, crossed)
				}
			}
			if all.Bytes() != bytes || all.InZone+all.CrossZone+all.Outside+all.Unknown != bytes || !near(all.Client, cost.Client) || !near(all.Server, cost.Server) {
				t.Fatalf("by name %+v; there are %d, %+v", all, bytes, cost)
			}
		}
		// Evenly spread bytes cost the same however time is cut.
		cut := at("cut")
		if cut.Before(to) {
			for _, f := range flows {
				f.RequestBytes, f.ResponseBytes = 1e6*uint64(to.Sub(from).Seconds()), 0
				first, second := f, f
				first.RequestBytes, second.RequestBytes = 1e6*uint64(cut.Sub(from).Seconds()), 1e6*uint64(to.Sub(cut).Seconds())
				if one, two := whole.Cost(f).USD(), s.Tariff(from, cut).Cost(first).USD()+s.Tariff(cut, to).Cost(second).USD(); !near(one, two) {
					t.Fatalf("%g in one piece, %g in two", one, two)
				}
			}
		}
	})
}

func TestZones(t *testing.T) {
	flows := []model.Flow{
		flow(pod("a", "a1", "shop", "deployment/web"), pod("b", "b1", "shop", "deployment/db"), "db", 10, 1000),
		flow(pod("b", "b1", "shop", "deployment/web"), pod("a", "a1", "shop", "deployment/db"), "db", 20, 2000),
		flow(pod("a", "a1", "shop", "deployment/web"), pod("a", "a1", "shop", "deployment/db"), "db", 1, 2),
		flow(pod("a", "a1", "shop", "deployment/web"), model.Party{Kind: model.Outside, Block: "internet"}, "", 3, 4),
		flow(model.Party{Kind: model.Unknown}, pod("a", "a1", "shop", "deployment/web"), "", 5, 0),
	}
	got := ""
	for _, z := range meter.Zones(flows, series(t, meter.Era{Prices: book(t, "aws")}).Tariff(start, start)) {
		got += fmt.Sprintf("%s %s %d %d %.4g\n", z.From, z.To, z.Bytes, z.Packets, z.USD*1e9)
	}
	want := `(outside) a 4 1 0
(unknown) a 5 1 0
a (outside) 3 1 0
a (unknown) 0 1 0
a a 3 2 0
a b 2010 2 40.2
b a 1020 2 20.4
`
	if got != want {
		t.Errorf("%s", got)
	}
}
