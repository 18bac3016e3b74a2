package meter_test

import (
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// routing is a plan in which zone a sends a fifth to b, b stays, c has nothing and d is drained.
func routing(mode model.Mode) meter.Routing {
	p := &model.RoutePlan{Zones: []model.ZonePlan{
		{Name: "a", Endpoints: 2, Weights: model.Shares{{Zone: "a", Share: 0.8}, {Zone: "b", Share: 0.2}}},
		{Name: "b", Endpoints: 2, Weights: model.Shares{{Zone: "b", Share: 1}}},
		{Name: "c", Weights: model.Shares{{Zone: "a", Share: 1}}},
		{Name: "d", Endpoints: 2, Drained: true, Weights: model.Shares{{Zone: "a", Share: 1}}},
	}}
	return meter.Routing{Mode: mode, Plan: p, Weighted: true}
}

func crossing(from, to string) model.Flow {
	return flow(pod(from, from+"1", "shop", "deployment/web"), pod(to, to+"1", "shop", "deployment/db"), "db", 1, 1)
}

func TestWhy(t *testing.T) {
	old := func(f model.Flow) model.Flow { f.Connections = 0; return f }
	via := func(f model.Flow, v model.Via) model.Flow { f.Via = v; return f }
	toNode := via(crossing("a", "b"), model.ViaNodePort)
	toNode.Server = node("b", "b1")
	direct := via(crossing("a", "b"), model.ViaDirect)
	direct.Service = model.Name{}
	hintless := routing(model.Optimal)
	hintless.Weighted, hintless.Plan.Hints = false, model.HintOutcome{None: true, Reason: "5 nodes are too few"}
	hinted := routing(model.Optimal)
	hinted.Weighted = false
	upstream := func(v model.Verdict) meter.Routing {
		r := routing(model.Observe)
		r.Plan.Upstream = v
		return r
	}
	const asked = "topology-mode Auto"
	for _, c := range []struct {
		flow    model.Flow
		routing meter.Routing
		want    string
	}{
		{direct, routing(model.Optimal), "not a Service"},
		{via(crossing("a", "b"), model.ViaHeadless), routing(model.Optimal), "headless"},
		{via(crossing("a", "b"), model.ViaUnknown), routing(model.Optimal), "unknown"},
		{toNode, routing(model.Optimal), "node dialled"},
		{crossing("a", "b"), meter.Routing{}, "no plan"},
		{crossing("c", "a"), routing(model.Optimal), "no endpoint in zone"},
		{crossing("c", "a"), routing(model.Off), "no endpoint in zone"},
		{crossing("x", "a"), routing(model.Optimal), "no endpoint in zone"},
		{crossing("a", "b"), routing(model.Optimal), "bound"},
		{old(crossing("a", "b")), routing(model.Optimal), "bound"},
		{crossing("a", "b"), hintless, "no hints: 5 nodes are too few"},
		{crossing("b", "a"), hinted, "off plan"},
		{crossing("d", "a"), routing(model.Optimal), "drained"},
		{crossing("b", "a"), routing(model.Optimal), "off plan"},
		{old(crossing("b", "a")), routing(model.Optimal), "long-lived"},
		{crossing("a", "b"), routing(model.Observe), "no hints: nothing was asked for"},
		{old(crossing("a", "b")), routing(model.Off), "no hints: nothing was asked for"},
		{crossing("a", "b"), upstream(model.Verdict{Asked: asked, Reason: "insufficient endpoints"}), "no hints: insufficient endpoints"},
		{crossing("a", "b"), upstream(model.Verdict{Asked: asked, Reason: "insufficient endpoints", Inequality: "2 endpoints < 3 zones"}), "no hints: 2 endpoints < 3 zones"},
		{crossing("a", "b"), upstream(model.Verdict{Asked: asked, Hints: true}), "upstream's hints"},
		{old(crossing("a", "b")), upstream(model.Verdict{Asked: asked, Hints: true}), "long-lived"},
	} {
		if got := meter.Why(c.flow, c.routing).String(); got != c.want {
			t.Errorf("%v with %+v: %s, want %s", c.flow.FlowKey, c.routing.Mode, got, c.want)
		}
	}
}

// mixed is a minute of traffic.
func mixed() []model.Flow {
	long := crossing("b", "a")
	long.Connections, long.ResponseBytes = 0, 900e6
	return []model.Flow{
		calls("a", 5000), calls("b", 3000), calls("c", 2000), crossing("a", "b"), crossing("c", "a"), long,
		flow(pod("a", "a1", "shop", "deployment/web"), model.Party{Kind: model.Outside, Block: "internet"}, "", 3e6, 40e6),
		flow(node("b", "b1"), pod("c", "c1", "stock", "statefulset/db"), "", 7e9, 1e9),
	}
}

func TestTables(t *testing.T) {
	tariff := series(t, meter.Era{Prices: book(t, "aws")}).Tariff(start, start.Add(time.Minute))
	why := func(f model.Flow) meter.Reason { return meter.Why(f, routing(model.Optimal)) }
	text := meter.ZoneTable(meter.Zones(mixed(), tariff), time.Minute) + "\n"
	for _, by := range []struct {
		name string
		by   meter.By
	}{{"Service", meter.ByService}, {"client", meter.ByClient}, {"server", meter.ByServer}, {"namespace", meter.ByNamespace}} {
		lines := meter.Group(mixed(), by.by, tariff, why)
		text += "by " + by.name + "\n" + meter.Table(meter.Top(lines, meter.ByCost, 0), time.Minute) + "\n"
	}
	text += meter.Text(meter.Sum(mixed()))
	golden.Check(t, "tables.golden", text)
}

func TestTop(t *testing.T) {
	line := func(name string, in, cross uint64, usd float64, packets, opened uint64) meter.Line {
		l := meter.Line{Name: name, Traffic: meter.Traffic{InZone: in, CrossZone: cross, Money: meter.Money{Client: usd}}}
		l.RequestBytes, l.RequestPackets, l.Connections = in+cross, packets, opened
		return l
	}
	lines := []meter.Line{line("c", 0, 0, 0, 5, 1), line("b", 10, 30, 2, 4, 2), line("a", 50, 50, 1, 3, 3), line("d", 10, 30, 2, 2, 4)}
	for _, o := range append(meter.Orders(), "moon") {
		got := ""
		for _, l := range meter.Top(lines, o, 0) {
			got += l.Name
		}
		want := map[meter.Order]string{meter.ByBytes: "abdc", meter.ByCross: "abdc", meter.ByCost: "bdac", meter.ByInZone: "bdac", meter.ByPackets: "cbad", meter.ByOpened: "dabc", meter.ByName: "abcd", "moon": "abcd"}[o]
		if got != want {
			t.Errorf("%s: %s, want %s", o, got, want)
		}
		if len(meter.Top(lines, o, 2)) != 2 || len(meter.Top(lines, o, 9)) != 4 {
			t.Error("length")
		}
	}
	if lines[0].Name != "c" {
		t.Error("its input is in another order")
	}
	for _, c := range []struct {
		bytes uint64
		d     time.Duration
		want  string
	}{{0, time.Second, "0 B/s"}, {999, time.Second, "999 B/s"}, {9996, 10 * time.Second, "1 kB/s"}, {60e6, time.Minute, "1 MB/s"}, {12345678, time.Second, "12.3 MB/s"}, {5e15, time.Second, "5e+03 TB/s"}, {5, 0, "-"}} {
		if got := meter.Rate(c.bytes, c.d); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
