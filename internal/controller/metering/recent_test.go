package metering

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

func connections(flows []model.Flow) (n uint64) {
	for _, f := range flows {
		n += f.Connections
	}
	return n
}

// What was lately is at hand: as much as a minute has, whenever it is asked.
func TestLately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		if _, ok := w.meter.Lately(web, false); ok {
			t.Error("nothing is known yet")
		}
		for second := range 200 {
			if second%10 == 3 {
				w.report("a1", calls("a1", "b1", 10), callsOf(db, "a1", "c1", 1))
				w.report("b1", calls("b1", "b1", 20))
			}
			w.wait(time.Second)
			l, ok := w.meter.Lately(web, false)
			if second < 100 {
				continue
			}
			rate := float64(connections(l.Flows)) / l.For.Seconds()
			if !ok || l.For < time.Minute || l.For > 72*time.Second || rate < 2.5 || rate > 3.5 {
				t.Fatalf("%v connections in %v", connections(l.Flows), l.For)
			}
			if c := l.Tariff.Cost(calls("a", "b", 1e5)).USD(); fmt.Sprintf("%.4f", c) != "0.0200" {
				t.Fatal(c)
			}
		}
		if n := len(w.term.recent.slots); n > 8 {
			t.Errorf("%d slots", n)
		}
		w.wait(5 * time.Minute)
		if n := len(w.term.recent.slots); n != 0 {
			t.Errorf("%d slots are left", n)
		}
	})
}

// Beyond its bound the memory forgets nodes, then the oldest slots, and says from when on it knows.
func TestRecentIsBounded(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newRecent(at)
	r.most = 100
	flows := func(n int, from int) (out []model.Flow) {
		for i := range n {
			f := calls("a1", "b1", 1)
			f.Client.Node, f.Client.Workload = fmt.Sprint("n", i), fmt.Sprint("deployment/w", from+i/10)
			out = append(out, f)
		}
		return out
	}
	r.add(at, 10*time.Second, flows(80, 0))
	r.add(at.Add(10*time.Second), 10*time.Second, flows(80, 0)) // 20 with nodes, 6 without
	if r.rows != 106 || r.slots[0].coarse || !r.slots[1].coarse {
		t.Errorf("%d rows", r.rows)
	}
	if n := connections(all(r)); n != 160 {
		t.Errorf("%d connections", n)
	}
	r.add(at.Add(20*time.Second), 10*time.Second, flows(1500, 1000))
	if r.rows > 200 || len(r.slots) > 2 {
		t.Errorf("%d rows in %d slots", r.rows, len(r.slots))
	}
	if _, _, ok := r.since(at); ok {
		t.Error("the first slot is gone, and nobody says so")
	}
	r.add(at.Add(21*time.Second), 10*time.Second, flows(3000, 5000)) // more than one slot may have
	if _, _, ok := r.since(at.Add(22 * time.Second)); ok || r.rows > 200 {
		t.Errorf("%d rows, and all is said to be known", r.rows)
	}
}

func all(r *recent) (out []model.Flow) {
	for _, s := range r.slots {
		for _, x := range s.rows {
			out = append(out, s.flow(x))
		}
	}
	return out
}

// What goes to a Service's pods around it is told of with the Service, once, and by nobody else's name.
func TestRecentAroundAService(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newRecent(at)
	direct := calls("a1", "b1", 1)
	direct.Service, direct.Via = model.Name{}, model.ViaDirect
	headless := calls("a1", "b1", 2)
	headless.Service.Name, headless.Via = "web-headless", model.ViaHeadless
	v6 := direct
	v6.V6 = true
	other := callsOf(db, "a1", "c1", 4)
	other.Server.Workload = "deployment/db"
	r.add(at, 10*time.Second, []model.Flow{calls("a1", "b1", 8), direct, headless, v6, other})
	for _, c := range []struct {
		of   asked
		want uint64
	}{{asked{web, false}, 8 + 1 + 2}, {asked{db, false}, 4}, {asked{headless.Service, false}, 2}} {
		flows, _, ok := r.service(c.of, at)
		if got := connections(flows); !ok || got != c.want {
			t.Errorf("%s: %d connections, want %d", c.of.service, got, c.want)
		}
	}
}
