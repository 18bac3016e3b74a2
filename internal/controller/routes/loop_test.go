package routes

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/route"
)

var webName = model.Name{Namespace: "default", Name: "web"}

// metered is a meter that counts what a test sends, as the controller's does.
type metered struct {
	mu      sync.Mutex
	demands *meter.Demands
	flows   []model.Flow // of the last interval
	length  time.Duration
	since   map[time.Time][]model.Flow // by the beginning of their interval
	tariff  meter.Tariff
	blind   bool // nobody reports
}

func newMetered(perGB float64) *metered {
	series, err := meter.NewSeries(meter.Era{Prices: model.Prices{Name: "test", PerGB: perGB, Receiver: 0.5}})
	if err != nil {
		panic(err)
	}
	return &metered{demands: meter.NewDemands(meter.DefaultSmoothing()), since: map[time.Time][]model.Flow{}, tariff: series.Tariff(time.Time{}, time.Time{})}
}

// add tells of what went in an interval that ends now.
func (m *metered) add(d time.Duration, flows ...model.Flow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.demands.Add(time.Now(), d, flows)
	m.flows, m.length = flows, d
	m.since[time.Now().Add(-d)] = slices.DeleteFunc(slices.Clone(flows), func(f model.Flow) bool { return f.Service != webName })
}

func (m *metered) Measured(svc model.Name, v6 bool, now time.Time) *model.Demand {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blind {
		return nil
	}
	return m.demands.Measured(svc, v6, now)
}

func (m *metered) Counted(svc model.Name, v6 bool, since time.Time) ([]route.Counted, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var flows []model.Flow
	any := false
	for at, f := range m.since {
		if !at.Before(since) {
			flows, any = append(flows, f...), true
		}
	}
	return meter.Counted(flows, svc, v6), any
}

func (m *metered) Lately(model.Name, bool) (Lately, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Lately{Flows: m.flows, For: m.length, Tariff: m.tariff}, m.flows != nil && !m.blind
}

func (m *metered) Nodes() int { return 6 }

// went is a flow of web from zone to zone.
func went(from, to string, connections, size uint64) model.Flow {
	return model.Flow{
		FlowKey: model.FlowKey{
			Client:  model.Party{Kind: model.PodParty, Zone: from, Node: from + "1", Namespace: "shop", Workload: "deployment/front"},
			Server:  model.Party{Kind: model.PodParty, Zone: to, Node: to + "1", Namespace: "default", Workload: "deployment/web"},
			Service: webName, Port: 80, Protocol: model.TCP, Via: model.ViaClusterIP,
		},
		FlowCount: model.FlowCount{Connections: connections, RequestBytes: size / 10, ResponseBytes: size - size/10},
	}
}

// closed is a loop: traffic follows the weights in the status, and is measured.
func closed(t *testing.T, objects []runtime.Object, f func(w *world, m *metered)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetered(0.02)
		w := &world{t: t, settings: settings(""), api: apitest.New(objects...), metered: m}
		w.begin()
		defer func() { w.stop() }()
		w.pass(15 * time.Second)
		f(w, m)
	})
}

// zones are those of every test here.
var zones = []string{"a", "b", "c"}

// shares are three zones' parts of a demand.
func shares(v [3]float64) (out model.Shares) {
	for i, z := range zones {
		out = append(out, model.Share{Zone: z, Share: v[i]})
	}
	return out
}

// weights are those in force, by the status.
func weights(zr *v1alpha1.ZoneRoute) (out model.Matrix) {
	if len(zr.Status.Plans) == 0 {
		return route.Even(nil, zones)
	}
	for _, z := range zr.Status.Plans[0].Zones {
		row := model.Row{Zone: z.Name}
		for _, to := range zones {
			row.To = append(row.To, model.Share{Zone: to, Share: z.Weights[to]})
		}
		out = append(out, row)
	}
	return out
}

// send is what follows the weights for a while, at a rate of connections in a second.
func send(demand [3]float64, by model.Matrix, perSecond, size float64, d time.Duration, r *rand.Rand) (out []model.Flow) {
	for i, from := range zones {
		for _, to := range by.Of(from) {
			n := demand[i] * to.Share * perSecond * d.Seconds()
			if r != nil {
				n = max(0, n+math.Sqrt(n)*r.NormFloat64())
			}
			if count := uint64(math.Round(n)); count > 0 {
				out = append(out, went(from, to.Zone, count, count*uint64(size)))
			}
		}
	}
	return out
}

func most(load model.Shares) (out float64) {
	for _, l := range load {
		out = max(out, l.Share)
	}
	return out
}

// figures are what weights make of a demand.
type figures struct{ inZone, load, smoothed, perMinute float64 }

func judged(by model.Matrix, demand, smoothed model.Shares, bytesPerSecond float64) figures {
	fair := shares([3]float64{1. / 3, 1. / 3, 1. / 3})
	return figures{route.InZone(by, demand), most(route.Load(by, demand, fair)), most(route.Load(by, smoothed, fair)),
		route.PerTB(by, demand, model.Prices{PerGB: 0.02}) * bytesPerSecond * 60 / 1e12}
}

// Demand of 70/20/10 over zones with three pods each becomes 10/20/70 within a minute. The plan follows;
// what is measured is never over the bound; nothing flaps, then or later.
func TestThePlanFollowsDemand(t *testing.T) {
	const (
		perSecond, size = 2000.0, 50_000.0
		step            = 10 * time.Second
		start, move     = 3 * time.Minute, time.Minute
		bound           = 1.2
	)
	objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
	byCPU, _ := route.Plan(route.Input{Service: webName, Cluster: route.NewCluster([]model.Node{
		{Name: "a1", Zone: "a", Ready: true, MilliCPU: 2000}, {Name: "b1", Zone: "b", Ready: true, MilliCPU: 2000}, {Name: "c1", Zone: "c", Ready: true, MilliCPU: 2000},
	}, model.Prices{PerGB: 0.02}), Endpoints: threeEach()})
	closed(t, objects, func(w *world, m *metered) {
		var text strings.Builder
		fmt.Fprintf(&text, "Three pods in each of three zones; %g connections a second of %g bytes; demand moves between 0 s and 60 s.\n", perSecond, size)
		text.WriteString("Load is of the most loaded endpoint: for the demand of now, and for the measured one. USD a minute at 0.02 USD/GB.\n\n")
		text.WriteString("          DEMAND OF NOW   MEASURED        | BY WHAT IS MEASURED                | BY NODES' CPU\n")
		text.WriteString("SECOND    a    b    c      a    b    c    | IN-ZONE  LOAD  MEASURED  USD/MIN  CHANGES | IN-ZONE  LOAD  USD/MIN\n")
		var lines [4][]plotter.XYs
		for i := range lines {
			lines[i] = make([]plotter.XYs, 2)
		}
		var last time.Time
		changes, after := 0, 0
		for at := -start; at <= 10*time.Minute; at += step {
			p := min(max(float64(at)/float64(move), 0), 1)
			demand := [3]float64{0.7 - 0.6*p, 0.2, 0.1 + 0.6*p}
			m.add(step, send(demand, weights(w.route("web")), perSecond, size, step, nil)...)
			w.pass(step)
			zr := w.route("web")
			plan := zr.Status.Plans[0]
			known, _ := m.demands.Of(webName, false, time.Now())
			ours := judged(weights(zr), shares(demand), known.Shares, perSecond*size)
			theirs := judged(byCPU.Matrix(), shares(demand), known.Shares, perSecond*size)
			if at > -start && !plan.ChangedAt.Time.Equal(last) {
				if changes++; at > 6*time.Minute {
					after++
				}
			}
			last = plan.ChangedAt.Time
			if plan.Demand.Source != "Measured" {
				t.Errorf("%v: demand is %s", at, plan.Demand.Source)
			}
			if ours.smoothed > bound+epsilon {
				t.Errorf("%v: load %v for what is measured", at, ours.smoothed)
			}
			for i, z := range plan.Zones {
				if off := math.Abs(z.Demand - known.Shares.Of(zones[i])); off > 0.02+epsilon {
					t.Errorf("%v: zone %s is planned for %v, measured is %v", at, z.Name, z.Demand, known.Shares.Of(z.Name))
				}
			}
			if at >= move+2*time.Minute && ours.inZone < 0.7*0.9 { // two smoothing periods later; the optimum is 0.4 + 0.2 + 0.1
				t.Errorf("%v: in zone %v", at, ours.inZone)
			}
			for i, v := range [][2]float64{{100 * ours.inZone, 100 * theirs.inZone}, {ours.load, theirs.load}, {ours.smoothed, theirs.smoothed}, {ours.perMinute, theirs.perMinute}} {
				for j := range v {
					lines[i][j] = append(lines[i][j], plotter.XY{X: at.Seconds(), Y: v[j]})
				}
			}
			if at >= -30*time.Second && at <= 5*time.Minute {
				fmt.Fprintf(&text, "%6.0f    %2.0f   %2.0f   %2.0f     %4.1f %4.1f %4.1f   | %6.1f%%  %4.2f  %8.2f  %7.4f  %7d | %6.1f%%  %4.2f  %7.4f\n", at.Seconds(),
					100*demand[0], 100*demand[1], 100*demand[2], 100*known.Shares.Of("a"), 100*known.Shares.Of("b"), 100*known.Shares.Of("c"),
					100*ours.inZone, ours.load, ours.smoothed, ours.perMinute, changes, 100*theirs.inZone, theirs.load, theirs.perMinute)
			}
		}
		golden.Check(t, "demand_moves.txt", text.String())
		golden.Check(t, "../../../../docs/images/demand-moves.svg", drawn(t, lines))
		if changes > 30 || after > 0 {
			t.Errorf("%d changes of the plan, %d of them long after", changes, after)
		}
		w.writes()
		for range 180 { // half an hour of the same
			m.add(step, send([3]float64{0.1, 0.2, 0.7}, weights(w.route("web")), perSecond, size, step, nil)...)
			w.pass(step)
		}
		if got := w.writes(); got != "" {
			t.Errorf("nothing moves, but %s", got)
		}
	})
}

// threeEach are the endpoints of three pods in each zone.
func threeEach() []model.Endpoint {
	var out []model.Endpoint
	for i := range 9 {
		out = append(out, model.Endpoint{Addr: netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}), Zone: zones[i/3], Ready: true})
	}
	return out
}

// drawn is the picture of the table: a panel for each figure.
func drawn(t *testing.T, lines [4][]plotter.XYs) string {
	t.Helper()
	blue, orange := color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255} // Okabe and Ito, 2008
	titles := []string{"connections in zone (%)", "load of the most loaded endpoint", "the same, for the measured demand", "USD a minute"}
	panels := make([]*plot.Plot, len(titles))
	for i, title := range titles {
		p := plot.New()
		p.Title.Text, p.X.Label.Text = title, "seconds since demand began to move"
		p.Y.Min = 0
		for j, l := range lines[i] {
			line, err := plotter.NewLine(l)
			if err != nil {
				t.Fatal(err)
			}
			line.Width = vg.Points(1.6)
			line.Color = blue
			name := "by what is measured      " // room for who draws it in a wider font
			if j == 1 {
				line.Color, line.Dashes, name = orange, []vg.Length{vg.Points(5), vg.Points(3)}, "by nodes' CPU      "
			}
			p.Add(line)
			if i == 0 {
				p.Legend.Add(name, line)
			}
			for _, xy := range l {
				p.Y.Max = max(p.Y.Max, xy.Y*1.1)
			}
		}
		p.X.Min, p.X.Max = -60, 300
		p.Legend.Top = false
		p.Legend.TextStyle.Font.Variant = "Sans"
		for _, font := range []*string{(*string)(&p.Title.TextStyle.Font.Variant), (*string)(&p.X.Label.TextStyle.Font.Variant),
			(*string)(&p.X.Tick.Label.Font.Variant), (*string)(&p.Y.Tick.Label.Font.Variant)} {
			*font = "Sans"
		}
		panels[i] = p
	}
	canvas := vgsvg.New(vg.Points(900), vg.Points(520))
	tiles := draw.Tiles{Rows: 2, Cols: 2, PadX: 24, PadY: 24, PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 16}
	grid := [][]*plot.Plot{{panels[0], panels[1]}, {panels[3], panels[2]}}
	for i, row := range plot.Align(grid, tiles, draw.New(canvas)) {
		for j, c := range row {
			grid[i][j].Draw(c)
		}
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), "font-family:Liberation Sans", "font-family:Liberation Sans,Arial,Helvetica,sans-serif")
}

// Demand that only trembles, as counts do, changes next to nothing: at any rate of connections.
func TestDemandThatTrembles(t *testing.T) {
	const step = 10 * time.Second
	for _, c := range []struct {
		perSecond float64
		most      int // changes in an hour
	}{{2, 3}, {20, 4}, {200, 4}, {2000, 4}} {
		objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
		closed(t, objects, func(w *world, m *metered) {
			r := rand.New(rand.NewPCG(1, 2))
			changes := -1
			seen := map[time.Time]bool{}
			for range 360 {
				zr := w.route("web")
				if at := zr.Status.Plans[0].ChangedAt.Time; !seen[at] {
					seen[at] = true
					changes++
				}
				m.add(step, send([3]float64{0.6, 0.25, 0.15}, weights(zr), c.perSecond, 1000, step, r)...)
				w.pass(step)
			}
			if changes > c.most || changes < 1 {
				t.Errorf("%v a second: %d changes in an hour", c.perSecond, changes)
			}
			t.Logf("%v a second: %d changes, %s", c.perSecond, changes, w.writes())
		})
	}
}
