package metering

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// What the tables say is what flows are told by.
func TestFlowsAreToldByTheTables(t *testing.T) {
	w := newWorld(t)
	w.local = addrs("192.168.1.1", "127.0.0.1", "169.254.1.1")
	w.cgroups["c1"] = []uint64{71, 72}
	w.services.Update(noon, func(tx *state.Tx) {
		tx.PutServiceCIDR("kubernetes", []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")})
		tx.PutService(model.Service{Name: model.Name{Namespace: "shop", Name: "web"}, Type: model.LoadBalancer, ClusterIPs: addrs("10.96.0.1"),
			LoadBalancerIPs: addrs("203.0.113.5"), ExternalIPs: addrs("203.0.113.5", "198.51.100.9"), Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80, NodePort: 30080}}})
	})
	w.news(func(tx *state.Tx) {
		tx.PutPod(w.pod("x", "a1", "deployment/front", "10.0.1.7"))
		tx.PutPod(w.pod("y", "b1", "deployment/web", "10.0.2.1"))
		tx.PutPod(model.Pod{Name: model.Name{Namespace: "watch", Name: "e"}, Node: "a1", Workload: "daemonset/exporter", HostNetwork: true, Addresses: addrs("192.168.1.1"), Containers: []string{"c1"}})
		tx.PutSlice(model.Slice{Name: model.Name{Namespace: "shop", Name: "db-1"}, Service: "db", Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 5432}}, Endpoints: []model.Endpoint{{Addr: addrs("10.0.2.1")[0]}}})
	})
	w.look()
	process := key("192.168.1.1", "10.0.2.1:8080")
	process.Cgroup = 72
	for _, c := range []struct {
		key  meter.Key
		want string
	}{
		{dialled("10.0.1.7", "10.96.0.1:80", "10.0.2.1:8080"), "deployment/front@a > shop/web:80 ClusterIP deployment/web@b"},
		{dialled("10.0.1.7", "203.0.113.5:80", "10.0.2.1:8080"), "deployment/front@a > shop/web:80 LoadBalancer deployment/web@b"},
		{dialled("10.0.1.7", "198.51.100.9:80", "10.0.2.1:8080"), "deployment/front@a > shop/web:80 ExternalIP deployment/web@b"},
		{dialled("10.0.1.7", "192.168.2.1:30080", "10.0.2.1:8080"), "deployment/front@a > shop/web:80 NodePort deployment/web@b"},
		{key("10.0.1.7", "10.0.2.1:5432"), "deployment/front@a > shop/db:5432 Headless deployment/web@b"},
		{key("10.0.1.7", "10.0.2.1:22"), "deployment/front@a > /:22 Direct deployment/web@b"},
		{process, "daemonset/exporter@a > /:8080 Direct deployment/web@b"},
		{key("169.254.1.1", "10.0.2.1:8081"), "Node@a > /:8081 Direct deployment/web@b"},
		{key("10.0.1.7", "192.168.2.1:22"), "deployment/front@a > /:22 Direct Node@b"},
		{key("10.0.1.7", "10.9.9.9:22"), "deployment/front@a > /:22 Direct Unknown@"},
		{dialled("10.0.1.7", "203.0.113.5:80", "100.64.0.7:80"), "deployment/front@a > shop/web:80 LoadBalancer Unknown@"},
		{key("10.0.1.7", "172.16.0.1:22"), "deployment/front@a > /:22 Direct warehouse@"},
		{key("10.0.1.7", "8.8.8.8:53"), "deployment/front@a > /:53 Direct internet@"},
	} {
		w.disk.flows = nil
		w.kernel.send(c.key, 1)
		w.read()
		party := func(p model.Party) string {
			who := p.Workload
			if who == "" {
				who = p.Block
			}
			if who == "" {
				who = string(p.Kind)
			}
			return who + "@" + p.Zone
		}
		for _, f := range w.disk.flows {
			if got := fmt.Sprintf("%s > %s:%d %s %s", party(f.Client), f.Service, f.Port, f.Via, party(f.Server)); got != c.want {
				t.Errorf("%+v\n got %s\nwant %s", c.key, got, c.want)
			}
		}
		if len(w.disk.flows) != 1 {
			t.Errorf("%+v: %d flows", c.key, len(w.disk.flows))
		}
	}
	// All of it is over.
	w.services.Update(noon, func(tx *state.Tx) { tx.DeleteService(model.Name{Namespace: "shop", Name: "web"}) })
	w.meter.names.note(false, []state.Change[model.Name]{{Of: model.Name{Namespace: "shop", Name: "web"}}})
	w.news(func(tx *state.Tx) {
		tx.DeletePod(model.Name{Namespace: "watch", Name: "e"})
		tx.DeleteSlice(model.Name{Namespace: "shop", Name: "db-1"})
		tx.DeleteNode("b1")
	})
	w.look()
	w.kernel.pass(time.Minute)
	w.read()
	w.disk.flows = nil
	w.kernel.send(dialled("10.0.1.7", "192.168.2.1:30080", "10.0.2.1:8080"), 1)
	w.kernel.send(dialled("10.0.1.7", "10.96.0.1:80", "10.0.2.1:8080"), 1)
	w.kernel.send(key("10.0.1.7", "10.0.2.1:5432"), 1)
	w.kernel.send(process, 1)
	w.read()
	for _, f := range w.disk.flows {
		if f.Service != (model.Name{}) || f.Client.Workload == "daemonset/exporter" || f.Server.Zone != "" {
			t.Errorf("told by what is gone: %+v", f)
		}
	}
}

// A pod address that another pod has within a second is told apart, whoever's news comes when: the counters
// are read in between.
func TestAddressReusedWithinASecond(t *testing.T) {
	const ms = time.Millisecond
	for name, happens := range map[string]func(w *world, young model.Pod){
		"the old one goes first": func(w *world, young model.Pod) {
			w.deletes("old")
			w.look()
			w.kernel.pass(400 * ms)
			w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 7) // the young one's, before anybody knows of it
			w.puts(young)
			w.look()
		},
		"the young one comes first": func(w *world, young model.Pod) {
			w.puts(young)
			w.look()
			w.kernel.pass(400 * ms)
			w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 7)
			w.deletes("old")
			w.look()
		},
		"both at once": func(w *world, young model.Pod) {
			w.deletes("old")
			w.puts(young)
			w.look()
			w.kernel.pass(400 * ms)
			w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 7)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, node := range []string{"a1", "b1"} { // of this node, and of another that is talked with
				w := newWorld(t)
				w.puts(w.pod("old", node, "deployment/old", "10.0.1.7"))
				w.look()
				w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 100)
				w.read()
				w.kernel.pass(300 * ms)
				w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 30)
				happens(w, w.pod("young", node, "deployment/young", "10.0.1.7"))
				w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 1000)
				w.kernel.pass(10 * time.Second)
				w.read()
				if diff := cmp.Diff(map[string]uint64{"deployment/old": 130, "deployment/young": 1007}, w.bytes(clientWorkload)); diff != "" {
					t.Errorf("pods of %s: %s", node, diff)
				}
				if n := w.meter.metrics.lost["ambiguous"]; n > 0 {
					t.Errorf("%d bytes are ambiguous", n)
				}
			}
		})
	}
}

// A pod that goes while no agent runs is known to the next one, and so is whoever gets its address meanwhile.
func TestPodsGoWhileNoAgentRuns(t *testing.T) {
	for _, node := range []string{"a1", "b1"} {
		w := newWorld(t)
		for i, workload := range []string{"deployment/gone", "deployment/old", "deployment/there"} {
			w.puts(w.pod(workload[11:], node, workload, fmt.Sprintf("10.0.1.%d", i)))
		}
		w.look()
		send := func(bytes uint64, from ...int) {
			for _, i := range from {
				w.kernel.send(key(fmt.Sprintf("10.0.1.%d", i), "10.0.2.1:80"), bytes)
			}
		}
		send(100, 0, 1, 2)
		w.read()
		w.kernel.pass(time.Second)
		send(10, 0, 1, 2)
		// The agent dies, and the pods.
		w.deletes("gone")
		w.deletes("old")
		w.kernel.pass(time.Second)
		w.puts(w.pod("young", node, "deployment/young", "10.0.1.1"))
		w.start(nil)
		w.read()
		send(1, 1, 2)
		w.kernel.pass(10 * time.Second)
		w.read()
		want := map[string]uint64{"deployment/gone": 110, "deployment/old": 110, "deployment/there": 111, "deployment/young": 1}
		if diff := cmp.Diff(want, w.bytes(clientWorkload)); diff != "" {
			t.Errorf("pods of %s: %s", node, diff)
		}
	}
}

// News of pods that nobody here talks with costs no reading.
func TestOnlyNewsThatMattersIsARead(t *testing.T) {
	w := newWorld(t)
	w.look()
	w.kernel.send(key("192.168.1.1", "10.0.2.5:80"), 1)
	w.read()
	for _, c := range []struct {
		what string
		f    func()
		want int
	}{
		{"a pod elsewhere", func() { w.puts(w.pod("far", "b1", "deployment/far", "10.0.2.1")) }, 0},
		{"a local pod without address", func() { w.puts(w.pod("near", "a1", "deployment/near")) }, 0},
		{"it gets one", func() { w.puts(w.pod("near", "a1", "deployment/near", "10.0.1.7")) }, 1},
		{"nothing", func() {}, 0},
		{"something else about it", func() {
			p := w.pod("near", "a1", "deployment/near", "10.0.1.7")
			p.Containers = []string{"c"}
			w.puts(p)
		}, 0},
		{"it goes", func() { w.deletes("near") }, 1},
		{"a pod elsewhere that is talked with", func() { w.puts(w.pod("peer", "b1", "deployment/peer", "10.0.2.5")) }, 1},
		{"a pod of the host network", func() {
			p := w.pod("host", "a1", "daemonset/host", "192.168.1.1")
			p.HostNetwork = true
			w.puts(p)
		}, 0},
	} {
		before := w.kernel.reads
		c.f()
		w.look()
		if got := w.kernel.reads - before; got != c.want {
			t.Errorf("%s: read %d times, want %d", c.what, got, c.want)
		}
	}
}

// Pods are where their node is: also if that is known later, or moves.
func TestANodeGetsItsZone(t *testing.T) {
	w := newWorld(t)
	w.puts(w.pod("x", "c1", "deployment/x", "10.0.3.1"))
	w.look()
	zone := func() string {
		w.disk.flows = nil
		w.kernel.pass(10 * time.Second)
		w.read()
		w.kernel.send(key("192.168.1.1", "10.0.3.1:80"), 1)
		w.read()
		return w.disk.flows[0].Server.Zone
	}
	if got := zone(); got != "" {
		t.Errorf("zone %q of a node that nobody knows", got)
	}
	for _, want := range []string{"c", "d"} {
		w.news(func(tx *state.Tx) { tx.PutNode(model.Node{Name: "c1", Zone: want, Addresses: addrs("192.168.3.1")}) })
		if got := zone(); got != want {
			t.Errorf("zone %q, want %q", got, want)
		}
	}
	w.news(func(tx *state.Tx) { tx.PutNode(model.Node{Name: "a1", Zone: "e", Addresses: addrs("192.168.1.1")}) })
	w.local = addrs("169.254.1.1")
	if got := zone(); got != "d" {
		t.Errorf("zone %q", got)
	}
	w.kernel.send(key("169.254.1.1", "10.0.3.1:81"), 1)
	w.disk.flows = nil
	w.read()
	if got := w.disk.flows[0].Client; got.Zone != "e" || w.meter.names.owners.Self.Zone != "e" {
		t.Errorf("the node itself is in %+v", got)
	}
}

// What ended is forgotten: an agent lives for months.
func TestNothingGrows(t *testing.T) {
	w := newWorld(t)
	w.look()
	size := func() int { return len(fmt.Sprintf("%+v", w.meter.names.owners)) }
	var settled int
	for i := range 400 {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i / 200), byte(i % 200)})
		w.cgroups["c"] = []uint64{uint64(i)}
		host := model.Pod{Name: model.Name{Namespace: "shop", Name: "h"}, Node: "a1", Workload: fmt.Sprint("job/h", i), HostNetwork: true, Containers: []string{"c"}}
		w.news(func(tx *state.Tx) {
			tx.PutPod(w.pod(fmt.Sprint("p", i), "a1", fmt.Sprint("job/", i), a.String()))
			tx.PutPod(host)
		})
		svc := model.Name{Namespace: "shop", Name: fmt.Sprint("s", i)}
		change := []state.Change[model.Name]{{Of: svc}}
		w.services.Update(noon, func(tx *state.Tx) {
			tx.PutService(model.Service{Name: svc, ClusterIPs: []netip.Addr{a}, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80, NodePort: uint16(30000 + i)}}})
		})
		w.meter.names.note(false, change)
		w.look()
		w.kernel.send(key(a.String(), "8.8.8.8:53"), 1)
		w.kernel.pass(10 * time.Second)
		w.read()
		w.news(func(tx *state.Tx) {
			tx.DeletePod(model.Name{Namespace: "shop", Name: fmt.Sprint("p", i)})
			tx.DeletePod(host.Name)
		})
		w.services.Update(noon, func(tx *state.Tx) { tx.DeleteService(svc) })
		w.meter.names.note(false, change)
		w.look()
		if i == 100 {
			settled = size()
		}
	}
	if now := size(); now > settled+settled/4 || len(w.kernel.totals) > 50 || len(w.kernel.gone) > 2 || len(w.meter.names.processes) > 0 {
		t.Errorf("owners grew from %d to %d; %d counters are in use, %d to be given back, %d cgroups are known", settled, now, len(w.kernel.totals), len(w.kernel.gone), len(w.meter.names.processes))
	}
	if n := len(w.meter.names.residents.Snapshot().Changes(0).Pods); n > 1 {
		t.Errorf("%d changes of pods are remembered", n)
	}
}

// A kind of loss is logged once a minute at most, and counted always.
func TestLossIsLoggedOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelInfo}))
		m := newMetrics()
		for range 100 { // 100 s
			m.lose(meter.Lost{Uncounted: meter.Uncounted{Packets: 1, Bytes: 80}, Ambiguous: 7, Resets: 1}, log)
			wait(t.Context(), time.Second)
		}
		for kind, want := range map[string]int{"ambiguous": 2, "reset": 2, "uncounted": 0, "adopted": 0} {
			if got := strings.Count(b.String(), "kind="+kind); got != want {
				t.Errorf("%s: %d lines, want %d", kind, got, want)
			}
		}
		if m.lost["ambiguous"] != 700 || m.lost["uncounted"] != 8000 || m.events["reset"] != 100 {
			t.Errorf("lost %v, %v", m.lost, m.events)
		}
	})
}
