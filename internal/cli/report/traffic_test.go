package report

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/meter"
)

var (
	noon   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	minute = view.Interval{From: noon.Add(-time.Minute), To: noon}
)

func part(f float64) *float64 { return &f }

// measured is a minute of a shop: what people look at.
func measured() view.Traffic {
	return view.Traffic{
		Schema: view.TrafficSchema, Interval: minute, By: "services",
		Lines: []view.Line{
			{Name: "shop/db", Connections: 4, Bytes: 902_700_001, InZoneBytes: 1, CrossZoneBytes: 902_700_000, Packets: 700_000, InZoneShare: part(0), USD: 0.018, USDPerMonth: 790.77,
				Reasons: []view.Reason{{Cause: "long-lived", Bytes: 902_700_000}}},
			{Name: "shop/web", Connections: 10_000, Bytes: 110_000_000, InZoneBytes: 99_000_000, CrossZoneBytes: 11_000_000, Packets: 90_000, InZoneShare: part(0.9), USD: 0.00022, USDPerMonth: 9.636,
				Reasons: []view.Reason{{Cause: "bound", Bytes: 6_000_000}, {Cause: "long-lived", Bytes: 3_000_000}, {Cause: "bound", Detail: "again", Bytes: 2_000_000}}},
			{Name: "kube-system/kube-dns", Connections: 1200, Bytes: 300_000, InZoneBytes: 100_000, CrossZoneBytes: 200_000, Packets: 2400, InZoneShare: part(1.0 / 3), USDPerMonth: 0.17,
				Reasons: []view.Reason{{Cause: "no hints", Detail: "2 endpoints for 3 zones: at least 3 are needed", Bytes: 200_000}}},
			{Name: "shop/a-service-with-a-name-as-long-as-names-of-services-may-be-12345", Bytes: 5000, InZoneBytes: 5000, Packets: 12, InZoneShare: part(1)},
			{Name: "(not a Service)", Connections: 3, Bytes: 43_000_000, OutsideBytes: 43_000_000, Packets: 31_000},
		},
		Total: view.Line{Connections: 11_207, Bytes: 1_056_005_001, InZoneBytes: 99_105_001, CrossZoneBytes: 913_900_000, OutsideBytes: 43_000_000, Packets: 823_412,
			InZoneShare: part(0.0978), USD: 0.0182, USDPerMonth: 800.58},
		Notes: []string{"1 of 6 nodes has not reported"},
	}
}

func matrixOfZones() view.Traffic {
	t := measured()
	t.By, t.Lines = "zones", nil
	const a, b, c = "ap-northeast-2a", "ap-northeast-2b", "ap-northeast-2c"
	t.Zones = []view.Zones{
		{From: "(outside)", To: a, Bytes: 40_000_000, Packets: 30_000},
		{From: a, To: "(outside)", Bytes: 3_000_000, Packets: 1000},
		{From: a, To: a, Bytes: 99_000_000, Packets: 80_000},
		{From: a, To: b, Bytes: 2_700_001, Packets: 30_000, USD: 0.000054, USDPerMonth: 2.365},
		{From: b, To: a, Bytes: 900_000_000, Packets: 670_000, USD: 0.018, USDPerMonth: 788.4},
		{From: c, To: b, Bytes: 11_200_000, Packets: 9000, USD: 0.000224, USDPerMonth: 9.811},
	}
	return t
}

func flow(client, server view.Party, service string, change func(*view.Flow)) view.Flow {
	f := view.Flow{Schema: view.FlowSchema, At: noon, Seconds: 60, Client: client, Server: server, Namespace: "shop", Service: service, Port: 80, Protocol: "TCP", Via: "ClusterIP",
		Family: "IPv4", Connections: 7, RequestBytes: 9000, ResponseBytes: 2_000_000, ResponseExtra: 40, RequestPkts: 70, ResponsePkts: 1500}
	if service == "" {
		f.Namespace, f.Via = "", "Direct"
	}
	change(&f)
	return f
}

// flowsOfTheShop are flows of every kind that looks different.
func flowsOfTheShop() []view.Flow {
	front := view.Party{Kind: "Pod", Zone: "ap-northeast-2a", Node: "a1", Namespace: "shop", Workload: "deployment/front"}
	web := view.Party{Kind: "Pod", Zone: "ap-northeast-2b", Node: "b1", Namespace: "shop", Workload: "deployment/web"}
	internet := view.Party{Kind: "Outside", Block: "internet"}
	bound := view.Reason{Cause: "bound"}
	return []view.Flow{
		flow(front, web, "web", func(f *view.Flow) { f.USD, f.Reason = 0.00004, &bound }),
		flow(front, internet, "", func(f *view.Flow) { f.Port, f.ResponseBytes = 443, 10 }),
		flow(front, web, "web", func(f *view.Flow) { f.USD, f.Reason, f.At = 0.00004, &bound, noon.Add(time.Minute) }),
		flow(view.Party{Kind: "Node", Zone: "ap-northeast-2a", Node: "a1"}, web, "web", func(f *view.Flow) { f.Via, f.Protocol, f.RequestBytes = "NodePort", "UDP", 12_000_000 }),
		flow(view.Party{Kind: "Unknown"}, front, "", func(f *view.Flow) { f.Protocol, f.Port, f.ResponseBytes, f.ResponsePkts = "unknown", 0, 0, 0 }),
	}
}

func topOfFlows() view.Traffic {
	t := measured()
	t.By, t.Lines = "flows", nil
	for _, f := range flowsOfTheShop() {
		l := view.Line{Name: "told by its flow", Bytes: f.RequestBytes + f.ResponseBytes, Packets: f.RequestPkts + f.ResponsePkts, Connections: f.Connections, Flow: &f}
		if f.Reason != nil {
			l.Reasons, l.USDPerMonth = []view.Reason{*f.Reason}, 1.75
		}
		t.Lines = append(t.Lines, l)
	}
	return t
}

func costOfAWeek() view.Cost {
	since := noon.Add(-50 * time.Hour)
	return view.Cost{
		Schema: view.CostSchema, Interval: view.Interval{From: noon.Add(-7 * 24 * time.Hour), To: noon}, By: "services", Prices: []string{"aws", "ours.yaml"},
		Lines: []view.CostLine{
			{Name: "shop/db", Bytes: 9_000_000_000_000, CrossZoneBytes: 6_000_000_000_000, InZoneShare: part(1.0 / 3), USD: 120, USDPerMonth: 521.43, ForecastUSD: part(116.4)},
			{Name: "shop/web", Bytes: 2_000_000_000_000, CrossZoneBytes: 12_000_000_000, InZoneShare: part(0.994), USD: 0.24, USDPerMonth: 1.04, SavedUSD: part(26.4), Since: &since},
			{Name: "(not a Service)", Bytes: 43_000_000},
		},
		Total: view.CostLine{Bytes: 11_000_043_000_000, CrossZoneBytes: 6_012_000_000_000, InZoneShare: part(0.4535), USD: 120.24, USDPerMonth: 522.47, SavedUSD: part(26.4), ForecastUSD: part(116.4)},
	}
}

// What people see, in all its forms.
func TestTrafficTables(t *testing.T) {
	write := func(table func(*bytes.Buffer) error) string {
		var b bytes.Buffer
		if err := table(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	traffic := func(v view.Traffic, o meter.Order, at Place) string {
		return write(func(b *bytes.Buffer) error { return Traffic(b, v, o, at) })
	}
	byTeam := measured()
	byTeam.By = "label:team"
	for file, got := range map[string]string{
		"top_services.txt":   traffic(measured(), meter.ByBytes, Place{}),
		"top_services96.txt": traffic(measured(), meter.ByBytes, Place{Width: 96}),
		"top_services80.txt": traffic(measured(), meter.ByOpened, Place{Width: 80}),
		"top_cross.txt":      traffic(byTeam, meter.ByCross, Place{Width: 120, Height: 4}),
		"top_zones.txt":      traffic(matrixOfZones(), meter.ByBytes, Place{}),
		"top_zones80.txt":    traffic(matrixOfZones(), meter.ByBytes, Place{Width: 80}),
		"top_flows.txt":      traffic(topOfFlows(), meter.ByPackets, Place{}),
		"top_flows100.txt":   traffic(topOfFlows(), meter.ByBytes, Place{Width: 100}),
		"flows.txt":          write(func(b *bytes.Buffer) error { return flowTable(t, b, Place{}) }),
		"flows100.txt":       write(func(b *bytes.Buffer) error { return flowTable(t, b, Place{Width: 100}) }),
		"flows140.txt":       write(func(b *bytes.Buffer) error { return flowTable(t, b, Place{Width: 140}) }),
		"follow.txt":         write(func(b *bytes.Buffer) error { return followed(b, Place{}) }),
		"follow120.txt":      write(func(b *bytes.Buffer) error { return followed(b, Place{Width: 120}) }),
		"cost.txt":           write(func(b *bytes.Buffer) error { return Cost(b, costOfAWeek(), Place{}) }),
		"vpcflow.txt":        write(flowLog),
	} {
		golden.Check(t, file, got)
	}
}

// The guide shows what the commands print, and explains every reason.
func TestTheGuideShowsTheseTables(t *testing.T) {
	guide, err := os.ReadFile("../../../docs/metering.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"top_services96.txt", "top_zones.txt", "flows140.txt", "cost.txt"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(guide), string(text)) {
			t.Errorf("docs/metering.md does not have the text of testdata/%s", name)
		}
	}
	for _, c := range []meter.Cause{meter.NotAService, meter.Headless, meter.NodeDialled, meter.NoPlan, meter.NoEndpoint, meter.Drained, meter.Bound,
		meter.NoHints, meter.AskedAway, meter.LongLived, meter.AgainstPlan, meter.UnknownCause} {
		if !strings.Contains(string(guide), "\n| `"+string(c)) {
			t.Errorf("docs/metering.md does not explain %q", c)
		}
	}
}

func flowTable(t *testing.T, b *bytes.Buffer, at Place) error {
	var table FlowTable
	for _, f := range flowsOfTheShop() {
		if err := table.Add(f); err != nil {
			t.Error(err)
		}
	}
	return table.Write(b, at)
}

func followed(b *bytes.Buffer, at Place) error {
	f, err := Follow(b, at)
	if err != nil {
		return err
	}
	for _, v := range flowsOfTheShop() {
		if err := f.Flow(v); err != nil {
			return err
		}
	}
	return nil
}

func flowLog(b *bytes.Buffer) error {
	b.WriteString(FlowLogHeader + "\n")
	for _, v := range flowsOfTheShop() {
		if err := FlowLog(b, v); err != nil {
			return err
		}
	}
	return nil
}

// However narrow a terminal is, down to where names are cut to almost nothing, no line is wider.
func TestTablesFitTheTerminal(t *testing.T) {
	for _, c := range []struct {
		name  string
		least int
		table func(*bytes.Buffer, Place) error
	}{
		{"services", 68, func(b *bytes.Buffer, at Place) error { return Traffic(b, measured(), meter.ByCross, at) }},
		{"zones", 60, func(b *bytes.Buffer, at Place) error { return Traffic(b, matrixOfZones(), meter.ByBytes, at) }},
		{"flows", 98, func(b *bytes.Buffer, at Place) error { return Traffic(b, topOfFlows(), meter.ByBytes, at) }},
		{"followed", 118, followed},
	} {
		for width := c.least; width < 260; width += 7 {
			var b bytes.Buffer
			if err := c.table(&b, Place{Width: width}); err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > width {
					t.Errorf("%s in %d columns: %d: %s", c.name, width, n, l)
				}
			}
		}
	}
}

// Names come from whoever may make objects: they do not command the terminal of who looks.
func TestTablesDoNotCommandTheTerminal(t *testing.T) {
	v := measured()
	v.Lines[0].Name = "evil\x1b[2J\nname"
	var b bytes.Buffer
	if err := Traffic(&b, v, meter.ByBytes, Place{}); err != nil {
		t.Fatal(err)
	}
	f := flowsOfTheShop()[0]
	f.Client.Workload = "deployment/\x1b]0;x\a"
	w, err := Follow(&b, Place{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flow(f); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\a") || !strings.Contains(b.String(), "evil?[2J?name") {
		t.Errorf("%q", b.String())
	}
}

func TestMoneyThatIsLittleOrLost(t *testing.T) {
	for f, want := range map[float64]string{0: "$0", 0.0001: "<$0.01", -0.0001: "-<$0.01", -12: "-$12.00", 12: "$12.00", 790.77: "$791"} {
		if got := usd(f); got != want {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
}
