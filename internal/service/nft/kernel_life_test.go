//go:build kernel

package nft_test

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

func TestZoneHintsAndSpread(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	s := svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{
		endpoint(podAIP, "n1", "a"), endpoint(podBIP, "n1", "a"), endpoint(remoteIP, "n2", "b"), endpoint(otherIP, "n3", "c"),
	}}
	d.update("web", s.plan())
	const n = 200
	hits := map[string]int{}
	for range n {
		got, err := w.ask(w.podA, "10.100.0.7:80")
		hits[must(t, got, err).server]++
	}
	if len(hits) != 2 || math.Abs(float64(hits[target(podAIP)]-n/2)) > 40 {
		t.Errorf("with hints: %v, want zone a's two, evenly", hits)
	}

	s.endpoints[3].ZoneHints = nil
	d.update("web", s.plan())
	hits = map[string]int{}
	for range 2 * n {
		got, err := w.ask(w.podA, "10.100.0.7:80")
		hits[must(t, got, err).server]++
	}
	for server, k := range hits {
		if math.Abs(float64(k-n/2)) > 50 {
			t.Errorf("without: %s got %d of %d", server, k, 2*n)
		}
	}
	if len(hits) != 4 {
		t.Errorf("without hints: %v, want all four", hits)
	}
}

func TestUDPFlowsAreCut(t *testing.T) {
	w := newWorld(t)
	w.serveUDP(t, w.podA, target(podAIP))
	w.serveUDP(t, w.podB, target(podBIP))
	w.serveUDP(t, w.out, target(remoteIP))
	d := newDataplane(t, w)
	d.apply(nil)
	s := svc{name: "dns", protocol: model.UDP, ip: "10.100.0.10", nodePort: 30053, endpoints: []model.Endpoint{endpoint(remoteIP, "n2")}}
	d.update("dns", s.plan())

	c, err := w.dial(w.podA, "udp4", "10.100.0.10:80", dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := w.dial(w.out, "udp4", nodeIP+":30053", dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	want := func(step string, server string) {
		t.Helper()
		if got, err := askOn(c); err != nil || got.server != server {
			t.Errorf("%s: ClusterIP: %v %v, want %s", step, got, err, server)
		}
		if got, err := askOn(out); err != nil || got.server != server {
			t.Errorf("%s: NodePort: %v %v, want %s", step, got, err, server)
		}
	}
	want("at first", target(remoteIP))

	s.endpoints = []model.Endpoint{endpoint(podBIP, "n1")}
	d.update("dns", s.plan())
	want("the endpoint was replaced, same sockets", target(podBIP))

	// One that still serves keeps its flows when hints choose another.
	s.endpoints = []model.Endpoint{endpoint(podBIP, "n1", "b"), endpoint(remoteIP, "n2", "a")}
	d.update("dns", s.plan())
	want("hints point elsewhere", target(podBIP))

	s.endpoints = nil
	d.update("dns", s.plan())
	if _, err := askOn(c); err == nil {
		t.Error("a Service without endpoints answered")
	}
	s.endpoints = []model.Endpoint{endpoint(remoteIP, "n2")}
	d.update("dns", s.plan())
	again, err := w.dial(w.podA, "udp4", "10.100.0.10:80", dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, err := askOn(again); err != nil || got.server != target(remoteIP) {
		t.Errorf("endpoints again: %v %v", got, err)
	}
}

// A flow that began before the Service was known goes to the Service as soon as it is.
func TestUDPFlowFromBeforeTheService(t *testing.T) {
	w := newWorld(t)
	w.serveUDP(t, w.podB, target(podBIP))
	d := newDataplane(t, w)
	d.apply(nil)
	c, err := w.dial(w.podA, "udp4", "10.100.0.10:80", dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("lost\n")); err != nil {
		t.Fatal(err)
	}
	d.update("dns", svc{name: "dns", protocol: model.UDP, ip: "10.100.0.10", endpoints: []model.Endpoint{endpoint(podBIP, "n1")}}.plan())
	if got, err := askOn(c); err != nil || got.server != target(podBIP) {
		t.Errorf("%v %v", got, err)
	}
}

// What the kernel counted is what was sent, and outlives updates and the agent.
func TestCountersAreExact(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	w.serveUDP(t, w.podB, target(podBIP))
	d := newCounting(t, w)
	d.apply(nil)
	endpoints := []model.Endpoint{endpoint(podAIP, "n1"), endpoint(podBIP, "n1"), endpoint(remoteIP, "n2"), endpoint(otherIP, "n3")}
	d.update("web", svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: endpoints}.plan())
	d.update("dns", svc{name: "dns", protocol: model.UDP, ip: "10.100.0.10", endpoints: endpoints[1:2]}.plan())

	want := map[service.Pair]uint64{}
	pair := func(front string, p model.Protocol, back string) service.Pair {
		return service.Pair{
			Frontend: service.Key{Addr: netip.MustParseAddrPort(front), Protocol: p},
			Backend:  netip.MustParseAddrPort(back),
		}
	}
	for i := range 60 {
		for _, front := range []string{"10.100.0.7:80", nodeIP + ":30080"} {
			got, err := w.ask([]*netns.NS{w.podA, w.node}[i%2], front)
			want[pair(front, model.TCP, must(t, got, err).server)]++
		}
	}
	c, err := w.dial(w.podA, "udp4", "10.100.0.10:80", dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const datagrams = 25
	var payload uint64
	for range datagrams {
		got, err := askOn(c)
		must(t, got, err)
		payload += uint64(len("who?\n") + len(got.server) + len(got.client) + 2)
	}
	dns := pair("10.100.0.10:80", model.UDP, target(podBIP))
	want[dns] = 1

	check := func(step string) {
		t.Helper()
		got := d.counters()
		for p, n := range want {
			if got[p].Connections != n {
				t.Errorf("%s: %v: %d connections, made %d", step, p, got[p].Connections, n)
			}
			if p.Frontend.Protocol == model.TCP && got[p].Packets < 7*n {
				t.Errorf("%s: %v: %d packets for %d connections", step, p, got[p].Packets, n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d pairs counted, %d used", step, len(got), len(want))
		}
		const headers = 20 + 8 // IP and UDP
		if u := got[dns]; u.Packets != 2*datagrams || u.Bytes != payload+2*datagrams*headers {
			t.Errorf("%s: UDP: %+v, sent %d datagrams of %d bytes in all", step, u, 2*datagrams, payload)
		}
	}
	check("at once")
	d = newCounting(t, w)
	d.apply(map[model.Name][]service.Frontend{
		{Namespace: "t", Name: "web"}: svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: endpoints}.plan(),
		{Namespace: "t", Name: "dns"}: svc{name: "dns", protocol: model.UDP, ip: "10.100.0.10", endpoints: endpoints[1:2]}.plan(),
	})
	check("after a restart of the agent")

	// An endpoint that has gone takes its counters with it; the others keep theirs.
	d.update("web", svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: endpoints[1:]}.plan())
	for p := range want {
		if p.Backend == netip.MustParseAddrPort(target(podAIP)) {
			delete(want, p)
		}
	}
	check("after an endpoint has gone")
}

// Connections outlive updates, and a new agent that finds the table there.
func TestConnectionsSurvive(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	all := []model.Endpoint{endpoint(podBIP, "n1"), endpoint(remoteIP, "n2"), endpoint(otherIP, "n3")}
	s := svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: all}
	d.update("web", s.plan())
	type conn struct {
		io.ReadWriteCloser
		answer
	}
	var open []conn
	for range 20 {
		for _, from := range []string{"pod", "out"} {
			ns, addr := w.podA, "10.100.0.7:80"
			if from == "out" {
				ns, addr = w.out, nodeIP+":30080"
			}
			c, err := w.dial(ns, "tcp4", addr, 20*dialTimeout)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := read(c)
			open = append(open, conn{c, must(t, got, err)})
		}
	}
	alive := func(step string) {
		t.Helper()
		for i, c := range open {
			line := fmt.Sprintf("%s %d\n", step, i)
			buf := make([]byte, len(line))
			if _, err := io.WriteString(c, line); err != nil {
				t.Fatalf("%s: connection %d to %s: %v", step, i, c.server, err)
			}
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != line {
				t.Fatalf("%s: connection %d to %s: %q %v", step, i, c.server, buf, err)
			}
		}
	}
	alive("at first")
	s.endpoints = all[:1]
	d.update("web", s.plan())
	alive("endpoints removed")
	s.endpoints = nil
	d.update("web", s.plan())
	alive("no endpoints")
	s.endpoints = all
	want := map[model.Name][]service.Frontend{{Namespace: "t", Name: "web"}: s.plan()}
	d = newDataplane(t, w)
	w.in(t, w.node, func() error { return d.applier.Apply(nil, false) })
	alive("a new agent, which knows nothing yet")
	w.in(t, w.node, func() error { return d.applier.Apply(want, true) })
	alive("a new agent, which knows all")
	d.update("web", nil)
	alive("the Service is gone")
}

// A new agent over a good table writes nothing; over a deleted or damaged one, what is missing.
func TestAdoptAndRepair(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	want := map[model.Name][]service.Frontend{
		{Namespace: "t", Name: "web"}: svc{name: "web", ip: "10.100.0.7", nodePort: 30080,
			endpoints: []model.Endpoint{endpoint(podAIP, "n1"), endpoint(remoteIP, "n2")}}.plan(),
		{Namespace: "t", Name: "none"}: svc{name: "none", ip: "10.100.0.8", nodePort: 30081}.plan(),
		{Namespace: "t", Name: "weighted"}: weighted(svc{name: "weighted", ip: "10.100.0.9",
			endpoints: []model.Endpoint{endpoint(podAIP, "n1"), endpoint(remoteIP, "n2")}}.plan(), map[string]float64{podAIP: .6, remoteIP: .4}),
	}
	d.apply(want)
	door := &counting{Conn: kernelnft.Dial(w.node.FD())}
	other := newDataplaneOn(t, w, door)
	other.apply(want)
	other.apply(want)
	if door.commits != 0 {
		t.Errorf("a second agent wrote %d times over a good table", door.commits)
	}
	works := func(step string) {
		t.Helper()
		if _, err := w.ask(w.podB, "10.100.0.7:80"); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	// One transaction does the damage, one undoes it.
	const unknown = "of an unknown layout"
	for name, damage := range map[string]func(*kernelnft.Batch){
		"table deleted":    func(b *kernelnft.Batch) { b.DelTable() },
		"chain flushed":    func(b *kernelnft.Batch) { b.FlushChain("services") },
		"counted chain":    func(b *kernelnft.Batch) { b.FlushChain("lb-2") },
		"backends emptied": func(b *kernelnft.Batch) { empty(t, w, b, kernelnft.Set{Name: "backends"}) },
		"weights emptied":  func(b *kernelnft.Batch) { empty(t, w, b, kernelnft.Set{Name: "weights"}) },
		"a toss":           func(b *kernelnft.Batch) { b.FlushChain("lb-1-2") },
		"services emptied": func(b *kernelnft.Batch) { empty(t, w, b, kernelnft.Set{Name: "services"}) },
		"ways emptied":     func(b *kernelnft.Batch) { empty(t, w, b, kernelnft.Set{Name: "ways"}) },
		"outcomes emptied": func(b *kernelnft.Batch) { empty(t, w, b, kernelnft.Set{Name: "outcomes"}) },
		unknown:            func(b *kernelnft.Batch) { b.DelChain("layout-8") },
	} {
		b := kernelnft.NewBatch(table4)
		damage(b)
		if err := kernelnft.Dial(w.node.FD()).Commit(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := door.commits
		other.apply(want)
		works(name)
		transactions := 1
		if name == unknown {
			transactions = 3 // an interim table comes first and goes last
		}
		if got := door.commits - before; got != transactions {
			t.Errorf("%s: repaired in %d transactions", name, got)
		}
		if rules := w.nft(t, "list", "ruleset"); !strings.Contains(rules, "10.100.0.9 . tcp . 80 . 0x00010000") || strings.Count(rules, "@weights goto lb-1") != 8 {
			t.Errorf("%s: no weights any more", name)
		}
	}
	d.update("more", svc{name: "more", ip: "10.100.0.10", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan())
	works("the first agent goes on")
}

func empty(t *testing.T, w world, b *kernelnft.Batch, s kernelnft.Set) {
	elements, err := kernelnft.Dial(w.node.FD()).Elements(table4, s)
	if err != nil || len(elements) == 0 {
		t.Fatalf("set %s: %d elements, %v", s.Name, len(elements), err)
	}
	b.Delete(s, elements...)
}

func TestAuditAgainstTheKernel(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	plan := svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan()
	d.apply(nil)
	for range 3 {
		d.update("web", plan)
		d.update("web", nil)
	}
	d.update("web", plan)
	audit := func(step string, want bool) {
		t.Helper()
		w.in(t, w.node, func() error {
			got, err := d.applier.Audit()
			if got != want {
				t.Errorf("%s: repaired %v", step, got)
			}
			return err
		})
	}
	audit("nobody else was there", false)
	b := kernelnft.NewBatch(table4)
	b.DelTable()
	door := kernelnft.Dial(w.node.FD())
	defer door.Close()
	if err := door.Commit(b); err != nil {
		t.Fatal(err)
	}
	audit("the table was deleted", true)
	audit("again", false)
	if _, err := w.ask(w.podB, "10.100.0.7:80"); err != nil {
		t.Error(err)
	}
}

// BenchmarkAudit measures an audit when nobody has changed anything.
func BenchmarkAudit(b *testing.B) {
	w := world{node: space(b)}
	d := newDataplane(b, w)
	d.apply(many(1000))
	for b.Loop() {
		if _, err := d.applier.Audit(); err != nil {
			b.Fatal(err)
		}
	}
}

// The deleted table is noticed by an update too.
func TestUpdateAfterTheTableWasDeleted(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	d.update("web", svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan())
	w.in(t, w.node, func() error {
		b := kernelnft.NewBatch(table4)
		b.DelTable()
		return kernelnft.Dial(0).Commit(b)
	})
	change := map[model.Name][]service.Frontend{
		{Namespace: "t", Name: "more"}: svc{name: "more", ip: "10.100.0.9", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan(),
	}
	w.in(t, w.node, func() error { return d.applier.Update(change) })
	for _, addr := range []string{"10.100.0.7:80", "10.100.0.9:80"} {
		if _, err := w.ask(w.podB, addr); err != nil {
			t.Error(err)
		}
	}
}

// counting counts transactions.
type counting struct {
	*kernelnft.Conn
	commits int
}

func (c *counting) Commit(b *kernelnft.Batch) error {
	c.commits++
	return c.Conn.Commit(b)
}
