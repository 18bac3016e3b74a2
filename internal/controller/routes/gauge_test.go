package routes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
)

// steady is a demand that does not move.
var steady = [3]float64{0.6, 0.25, 0.15}

// follow lets traffic follow the weights for a while.
func (w *world) follow(m *metered, d time.Duration, perSecond float64) {
	for range d / (10 * time.Second) {
		m.add(10*time.Second, send(steady, weights(w.route("web")), perSecond, 50_000, 10*time.Second, nil)...)
		w.pass(10 * time.Second)
	}
}

// What traffic does is held against the plan and against what would be without us.
func TestTheStatusTellsWhatTrafficDoes(t *testing.T) {
	objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
	closed(t, objects, func(w *world, m *metered) {
		w.follow(m, 5*time.Minute, 2000)
		zr := w.route("web")
		got := zr.Status.Plans[0].Measured
		if got == nil {
			t.Fatal("nothing is told")
		}
		// 100 MB a second; 0.4 + 0.25 + 0.15 stay; without us a third would
		month := 100e6 * 730 * 3600 / 1e9 * 0.02
		for what, v := range map[string][2]float64{
			"in zone now": {got.InZone.Now, 0.8}, "planned": {got.InZone.Planned, 0.8}, "before": {got.InZone.Before, 1. / 3},
			"bytes": {got.BytesPerSecond, 100e6}, "USD now": {got.CostPerMonth.Now, 0.2 * month},
			"USD planned": {got.CostPerMonth.Planned, 0.2 * month}, "USD before": {got.CostPerMonth.Before, 2. / 3 * month},
		} {
			if v[0] < v[1]*0.99 || v[0] > v[1]*1.01 {
				t.Errorf("%s: %v, want %v", what, v[0], v[1])
			}
		}
		if s := zr.Status.Summary; s.InZone != "80%" || s.Planned != "80%" || s.CostPerMonth != fmt.Sprintf("$%.2f", got.CostPerMonth.Now) {
			t.Errorf("%+v", s)
		}
		if d := zr.Status.Plans[0].Demand; d.Source != "Measured" || d.BytesPerSecond == nil || d.MeasuredAt == nil {
			t.Errorf("%+v", d)
		}
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=True/AsPlanned Planned=True/Optimum")

		known, ok := w.keeper.Known(webName, false)
		if !ok || known.Mode != model.Optimal || known.Plan == nil || known.Applied.IsZero() || len(known.Before) != 3 {
			t.Errorf("%+v, %v", known, ok)
		}
		if six, ok := w.keeper.Known(webName, true); !ok || six.Plan != nil {
			t.Errorf("a family that it has not: %+v, %v", six, ok)
		}
		if _, ok := w.keeper.Known(model.Name{Namespace: "default", Name: "none"}, false); ok {
			t.Error("a Service that is not is known")
		}

		w.writes()
		for i := range 20 {
			w.follow(m, time.Minute, 1980+20*float64(i%3))
		}
		if got := w.writes(); got != "" {
			t.Errorf("traffic that wavers by two in a hundred: %s", got)
		}
		w.follow(m, 10*time.Minute, 3000) // half as much again: as many steps as smoothing makes, not more than one in a minute
		if n := w.api.ZoneRoutes.Writes()["patch status"]; n < 1 || n > 8 {
			t.Errorf("%d writes for another rate", n)
		}
		w.writes()
		m.add(10 * time.Second)
		w.pass(2 * time.Minute)
		if zr := w.route("web"); zr.Status.Plans[0].Measured != nil {
			t.Errorf("no traffic: %+v", zr.Status.Plans[0].Measured)
		}
		w.stop()
		if _, ok := w.keeper.Known(webName, false); ok {
			t.Error("who does not lead knows something")
		}
		w.begin()
	})
}

// What nobody measures any more holds on for a while: a new leader has to hear from agents first.
func TestMeasuredDemandOutlivesItsLeader(t *testing.T) {
	objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
	closed(t, objects, func(w *world, m *metered) {
		w.follow(m, 5*time.Minute, 2000)
		before := w.route("web")
		w.stop()
		m.blind = true
		w.writes()
		w.begin()
		w.pass(fallback - time.Minute)
		if got := w.writes(); got != "" {
			t.Errorf("a leader that knows nothing yet: %s", got)
		}
		m.blind = false
		w.follow(m, 5*time.Minute, 2000)
		if now := w.route("web"); !now.Status.Plans[0].ChangedAt.Equal(before.Status.Plans[0].ChangedAt) {
			t.Error("it changed the plan")
		}
		m.blind = true
		w.pass(2 * fallback)
		now := w.route("web").Status.Plans[0]
		if now.Demand.Source != "NodeCPU" || now.Measured != nil {
			t.Errorf("nothing is measured: %+v, %+v", now.Demand, now.Measured)
		}
		w.writes()
		w.pass(time.Hour)
		if got := w.writes(); got != "" {
			t.Errorf("nothing is measured, nothing changes: %s", got)
		}
		// hints of every replica follow the plan that stands in the status
		m.blind = false
		w.follow(m, 5*time.Minute, 2000)
		source := NewSource(w.keeper.Tables, w.keeper.Settings)
		target, ok, err := source.Target(webName, false, w.keeper.Tables.Snapshot().Slices(webName))
		if err != nil || !ok || target.Plan.Demand.Source != model.Measured || len(target.Plan.Zones[0].Weights) != 3 {
			t.Errorf("%+v, %v, %v", target.Plan.Demand, ok, err)
		}
	})
}

// What a ZoneRoute says goes before what is measured; but not as to bytes.
func TestTheSpecGoesBeforeWhatIsMeasured(t *testing.T) {
	for spec, source := range map[string]string{
		"{mode: Optimal, demand: {source: NodeCPU}}":                               "NodeCPU",
		"{mode: Optimal, demand: {source: Static, shares: [{zone: a, share: 1}]}}": "Static",
		"{mode: Observe, demand: {source: Measured}}":                              "Measured",
		"{mode: Observe}": "Measured",
		"{mode: Observe, demand: {bytesPerSecond: 5}}":                                  "Measured",
		"{mode: Optimal, demand: {source: NodeCPU, bytesPerSecond: 5}, maxOverload: 1}": "NodeCPU",
	} {
		objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", spec))
		closed(t, objects, func(w *world, m *metered) {
			w.follow(m, 5*time.Minute, 2000)
			d := w.route("web").Status.Plans[0].Demand
			if d.Source != source || d.BytesPerSecond == nil || *d.BytesPerSecond < 90e6 || *d.BytesPerSecond > 110e6 {
				t.Errorf("%s: %+v", spec, d)
			}
			w.writes()
			w.follow(m, 5*time.Minute, 2000)
			if got := w.writes(); got != "" {
				t.Errorf("%s: %s", spec, got)
			}
		})
	}
}

// Turns are spread: in no second there are more than a share of those of all.
func TestTurnsAreSpread(t *testing.T) {
	const services = 10_000
	every := services * time.Second / tellings
	begin := time.Unix(1_800_000_000, 0)
	got, worst := map[string]int{}, 0
	for at := time.Duration(0); at < every; at += glance {
		n := 0
		for i := range services {
			name := model.Name{Namespace: "default", Name: fmt.Sprintf("s%d", i)}
			if turn(name, every, begin.Add(at), begin.Add(at+glance)) {
				got[name.Name]++
				n++
			}
		}
		worst = max(worst, n)
	}
	for name, n := range got {
		if n != 1 {
			t.Fatalf("%s had %d turns", name, n)
		}
	}
	if len(got) != services || worst > 2*tellings*int(glance.Seconds()) {
		t.Errorf("%d had turns, %d at once", len(got), worst)
	}
}

// Many Services whose traffic changes all the time: no storm.
func TestManyMeasuredServices(t *testing.T) {
	const services = 900
	objects := cluster()
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		objects = append(objects, serviceObject(name, i), sliceObject(name, 1, 2, 1), routeObject(name, "{}"))
	}
	closed(t, objects, func(w *world, m *metered) {
		w.pass(2 * time.Minute)
		w.writes()
		for i := range 30 {
			var flows []model.Flow
			for s := range services {
				f := went("a", string(rune('a'+i%3)), 1000, uint64(1e6*(1+i%7)))
				f.Service.Name = fmt.Sprintf("s%d", s)
				flows = append(flows, f)
			}
			m.add(10*time.Second, flows...)
			w.pass(10 * time.Second)
		}
		counts := w.api.ZoneRoutes.Writes()["patch status"]
		if most := 300 * tellings * 6 / 5; counts < services || counts > most {
			t.Errorf("%d writes in five minutes", counts)
		}
	})
}

// An endpoint changes while demand moves: neither makes the other forgotten.
func TestEndpointsChangeWhileDemandIsMeasured(t *testing.T) {
	objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
	closed(t, objects, func(w *world, m *metered) {
		w.follow(m, 3*time.Minute, 2000)
		must(w.api.DiscoveryV1().EndpointSlices("default").Update(t.Context(), sliceObject("web", 6, 3, 3), metav1.UpdateOptions{}))
		w.follow(m, 3*time.Minute, 2000)
		p := w.route("web").Status.Plans[0]
		if p.Demand.Source != "Measured" || p.InZone.Planned < 0.97 { // 1.2 × 6/12 is 0.6
			t.Errorf("%+v, %+v", p.Demand, p.InZone)
		}
		if s := w.route("web").Status.Summary; s.InZone != "100%" {
			t.Errorf("%+v", s)
		}
	})
}

func TestAgentsAreSpared(t *testing.T) {
	k := newKernels()
	tr := watchTraffic(k, "a1", "b1")
	spare := true
	tr.Spare = func() bool { return spare }
	for range 3 {
		if err := tr.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if tr.Agents() != 2 || len(k.asked) != 0 {
		t.Errorf("%d agents, asked %v", tr.Agents(), k.asked)
	}
	spare = false
	if err := tr.look(t.Context()); err != nil || k.asked["a1"] != 1 {
		t.Errorf("%v, asked %v", err, k.asked)
	}
}

// The plan is that of optimal: a keeps all, b sends half of its to a.
func TestWhoDisobeys(t *testing.T) {
	flow := func(f model.Flow, change func(*model.Flow)) model.Flow {
		change(&f)
		return f
	}
	long := func(f *model.Flow) { f.Connections = 0 }
	headless := func(f *model.Flow) { f.Via, f.Service.Name = model.ViaHeadless, "web-pods" }
	direct := func(f *model.Flow) { f.Via, f.Service = model.ViaDirect, model.Name{} }
	itself := func(f *model.Flow) {
		direct(f)
		f.Client.Namespace, f.Client.Workload = "default", "deployment/web"
	}
	good := []model.Flow{went("a", "a", 10, 5000), went("b", "b", 10, 2000), went("b", "a", 10, 2000)}
	for _, c := range []struct {
		name    string
		more    []model.Flow
		carried bool
		share   float64
		grave   string
		text    string // with what is in doubt
	}{
		{"as planned", nil, false, 0, "", ""},
		{"long-lived", []model.Flow{flow(went("a", "b", 0, 1000), long)}, false, 0.1, LongLived,
			"10.0% of bytes: long-lived connections of shop/deployment/front in zone a"},
		{"long-lived where the plan sends some, too", []model.Flow{flow(went("b", "a", 0, 4000), func(f *model.Flow) { long(f); f.Client.Workload = "deployment/old" })}, false, 4. / 39, LongLived,
			"10.3% of bytes: long-lived connections of shop/deployment/old in zone b; 5.1% of bytes: connections of shop/deployment/front on node b1, where another proxy or a mesh may choose"},
		{"another proxy", []model.Flow{went("a", "b", 5, 1000)}, false, 0.1, Diverted,
			"10.0% of bytes: connections of shop/deployment/front on node a1, where another proxy or a mesh may choose"},
		{"in pieces, of which one has none that is new", []model.Flow{went("a", "b", 5, 500), went("a", "b", 0, 500)}, false, 0.1, Diverted,
			"10.0% of bytes: connections of shop/deployment/front on node a1, where another proxy or a mesh may choose"},
		{"chance", []model.Flow{went("b", "a", 10, 1000)}, false, 0, "", "5.0% of bytes: connections of shop/deployment/front on node b1, where another proxy or a mesh may choose"},
		{"headless", []model.Flow{flow(went("a", "b", 5, 1000), headless)}, false, 0.1, Bypassed,
			"10.0% of bytes: shop/deployment/front in zone a by the headless Service default/web-pods"},
		{"a mesh", []model.Flow{flow(went("a", "b", 5, 1000), direct)}, false, 0.1, Bypassed,
			"10.0% of bytes: shop/deployment/front in zone a by the pods' own addresses, as a mesh does"},
		{"within the zone", []model.Flow{flow(went("a", "a", 5, 1000), direct)}, false, 0, "", ""},
		{"pods among themselves", []model.Flow{flow(went("a", "b", 5, 1000), itself)}, false, 0, "", ""},
		{"somebody else's pods", []model.Flow{flow(went("a", "b", 5, 1000), func(f *model.Flow) { direct(f); f.Server.Workload = "deployment/db" })}, false, 0, "", ""},
		{"the other family", []model.Flow{flow(went("a", "b", 5, 1000), func(f *model.Flow) { f.V6 = true })}, false, 0, "", ""},
		{"an unknown zone", []model.Flow{flow(went("a", "b", 5, 1000), func(f *model.Flow) { f.Client.Zone = "" })}, false, 0, "", ""},
		{"a zone that the plan does not know", []model.Flow{went("z", "b", 5, 1000)}, false, 0, "", ""},
		{"a little", []model.Flow{flow(went("a", "b", 0, 300), long)}, false, 300. / 9300, "", "3.2% of bytes: long-lived connections of shop/deployment/front in zone a"},
		{"by hints", []model.Flow{went("b", "a", 10, 1800)}, true, 0, "", ""},
	} {
		v := optimal()
		v.carried = c.carried
		b := whose(append(slices.Clone(good), c.more...), v, &v.Families[0])
		if b.share < c.share-1e-3 || b.share > c.share+1e-3 || b.text(true) != c.text {
			t.Errorf("%s: %v, %q", c.name, b.share, b.text(true))
		}
		if grave, _ := b.graveness(model.Condition{}); grave != c.grave {
			t.Errorf("%s: %q", c.name, grave)
		}
	}
	// what was said holds until little is left
	v := optimal()
	b := whose(append(slices.Clone(good), flow(went("a", "b", 0, 300), long)), v, &v.Families[0])
	if _, grave := b.graveness(model.Condition{Status: no, Reason: LongLived}); !grave {
		t.Error("a condition that comes and goes")
	}
	if !b.differs(blame{}) || b.differs(b) {
		t.Error("differs")
	}
}

// The condition names them.
func TestObeyedNamesWhoDisobeys(t *testing.T) {
	objects := cluster(serviceObject("web", 1), sliceObject("web", 3, 3, 3), routeObject("web", "{mode: Optimal}"))
	closed(t, objects, func(w *world, m *metered) {
		w.follow(m, 5*time.Minute, 2000)
		w.said()
		drive := func(d time.Duration, more ...model.Flow) {
			for range d / (10 * time.Second) {
				flows := send(steady, weights(w.route("web")), 2000, 50_000, 10*time.Second, nil)
				m.add(10*time.Second, append(flows, more...)...)
				w.pass(10 * time.Second)
			}
		}
		old := went("c", "a", 0, 250e6) // a fifth as much again
		drive(3*time.Minute, old)
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=False/LongLived Planned=True/Optimum")
		if got := message(w.route("web"), Obeyed); !strings.HasPrefix(got, "20.0% of bytes: long-lived connections of shop/deployment/front in zone c") {
			t.Error(got)
		}
		if said := w.said(); len(said) != 1 || !strings.HasPrefix(said[0], "Warning LongLived Obeyed: 20.0% of bytes") {
			t.Errorf("%q", said)
		}
		w.stop()
		w.begin()
		w.pass(30 * time.Second)
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=False/LongLived Planned=True/Optimum")
		if said := w.said(); len(said) > 0 {
			t.Errorf("a new leader: %q", said)
		}
		drive(3 * time.Minute)
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=True/AsPlanned Planned=True/Optimum")
		// a node with a proxy of its own
		drive(4*time.Minute, went("b", "a", 5, 500e6))
		zr := w.route("web")
		if says(zr) != "Optimal Applied=True/WeightsPublished Obeyed=False/Diverted Planned=True/Optimum" ||
			!strings.Contains(message(zr, Obeyed), "of bytes: connections of shop/deployment/front on node b1") {
			t.Errorf("%s: %s", says(zr), message(zr, Obeyed))
		}
	})
}
