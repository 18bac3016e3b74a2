//go:build kernel

package nft_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// While endpoints come and go, agents are replaced and an old layout is replaced by the new,
// no connection fails that has a living endpoint.
func TestNoConnectFailsMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	all := []model.Endpoint{endpoint(podBIP, "n1"), endpoint(remoteIP, "n2"), endpoint(otherIP, "n3"), endpoint(podAIP, "n1")}
	s := svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: all}
	d.update("web", s.plan())

	door := kernelnft.Dial(w.node.FD())
	defer door.Close()
	var stop atomic.Bool
	var made atomic.Int64
	var clients sync.WaitGroup
	errs := make(chan error, 3)
	for _, c := range []struct {
		name string
		ask  func() (answer, error)
	}{
		{"a pod", func() (answer, error) { return w.ask(w.podA, "10.100.0.7:80") }},
		{"outside", func() (answer, error) { return w.ask(w.out, nodeIP+":30080") }},
		{"the node", func() (answer, error) { return w.ask(w.node, "10.100.0.7:80") }},
	} {
		clients.Go(func() {
			for !stop.Load() {
				if _, err := c.ask(); err != nil {
					errs <- fmt.Errorf("%s, after %d connections: %w", c.name, made.Load(), err)
					return
				}
				made.Add(1)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 400 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		s.endpoints = all[:1+r.IntN(len(all))]
		plan := s.plan()
		if i%2 == 0 {
			plan = weighted(plan, map[string]float64{podAIP: r.Float64(), podBIP: r.Float64(), remoteIP: r.Float64(), otherIP: r.Float64()})
		}
		d.update("web", plan)
		want := map[model.Name][]service.Frontend{{Namespace: "t", Name: "web"}: plan}
		switch i % 40 {
		case 10: // a new agent
			d = newDataplane(t, w)
			w.in(t, w.node, func() error { return d.applier.Apply(nil, false) })
			d.apply(want)
		case 20: // of another version
			b := kernelnft.NewBatch(table4)
			b.DelChain("layout-8")
			b.AddChain(kernelnft.Chain{Name: "layout-1"})
			if err := door.Commit(b); err != nil {
				t.Fatal(err)
			}
			d = newDataplane(t, w)
			w.in(t, w.node, func() error { return d.applier.Apply(nil, false) })
			d.apply(want)
		}
	}
	stop.Store(true)
	clients.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	t.Logf("%d connections during 400 updates", made.Load())
	if made.Load() == 0 {
		t.Error("no connection was made")
	}
}

// When the kernel may count no more pairs, traffic goes on and is balanced as before.
func TestCountersFull(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newCounting(t, w)
	d.apply(nil)
	door := kernelnft.Dial(w.node.FD())
	defer door.Close()
	b := kernelnft.NewBatch(table4)
	filler := make([]kernelnft.Element, 131072)
	for i := range filler {
		key := make([]byte, 20)
		binary.BigEndian.PutUint32(key, uint32(i))
		filler[i].Key = string(key)
	}
	for _, s := range []string{"connections", "traffic"} {
		b.Add(kernelnft.Set{Name: s, Key: []kernelnft.Field{
			kernelnft.Addr, kernelnft.Protocol, kernelnft.Port, kernelnft.Addr, kernelnft.Port,
		}}, filler...)
	}
	if err := door.Commit(b); err != nil {
		t.Fatal(err)
	}
	d.update("web", svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(podAIP, "n1"), endpoint(remoteIP, "n2")}}.plan())
	hits := map[string]int{}
	for range 60 {
		got, err := w.ask(w.podB, "10.100.0.7:80")
		hits[must(t, got, err).server]++
	}
	if len(hits) != 2 {
		t.Errorf("%v, want both", hits)
	}
	// The filler is no pair of ours: reading clears it away, and counting begins.
	if got := d.counters(); len(got) != 0 {
		t.Errorf("counted %v in full sets", got)
	}
	got, err := w.ask(w.podB, "10.100.0.7:80")
	must(t, got, err)
	p := service.Pair{
		Frontend: service.Key{Addr: netip.MustParseAddrPort("10.100.0.7:80"), Protocol: model.TCP},
		Backend:  netip.MustParseAddrPort(got.server),
	}
	if c := d.counters()[p]; c.Connections != 1 || c.Bytes == 0 {
		t.Errorf("after the clearing: %+v", c)
	}
}
