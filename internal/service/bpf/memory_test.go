package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// What is remembered goes with its frontend, its endpoint and its pod, and nothing is left of it.
func TestWhatIsRememberedGoes(t *testing.T) {
	k := newFakeKernel()
	a := k.agent("v1", &bpf.Life{})
	tables := k.layouts["v1"]
	at := netip.MustParseAddrPort("10.100.0.1:80")
	one, two := netip.MustParseAddrPort("10.1.0.1:80"), netip.MustParseAddrPort("10.1.0.2:80")
	web := func(endpoints ...netip.AddrPort) service.Frontend {
		f := service.Frontend{Service: model.Name{Name: "web"}, Addr: at, Protocol: model.TCP, Affinity: time.Hour,
			Group: service.Key{Addr: at, Protocol: model.TCP}, Choice: service.Choice{Verdict: service.Balance}}
		for _, e := range endpoints {
			f.Backends = append(f.Backends, service.Backend{Addr: e, Share: 1 / float64(len(endpoints))})
		}
		return f
	}
	program := func(list ...service.Frontend) {
		t.Helper()
		if err := a.Update(map[model.Name][]service.Frontend{{Name: "web"}: list}); err != nil {
			t.Fatal(err)
		}
	}
	id := func() uint32 { return tables.frontends.Entries[addressOf(at, model.TCP)].ID }
	client := netip.MustParseAddr("10.2.0.1")
	ask := func() { tables.remembered.Entries[memoryKey{id(), client.As16()}] = memory{} }
	remembered := func(what string, want int) []affinity.Entry {
		t.Helper()
		list, err := a.Remembered()
		if err != nil || len(list) != want {
			t.Fatalf("%s: %+v, %v, want %d", what, list, err, want)
		}
		return list
	}
	tell := func() {
		t.Helper()
		e := remembered("asked", 1)[0]
		e.Backend, e.Until = one, 3*time.Hour
		if err := a.Remember([]affinity.Entry{e}, nil); err != nil {
			t.Fatal(err)
		}
		if got := remembered("told", 1)[0]; got.Backend != one || got.Until != 3*time.Hour || got.Used != 2*time.Hour {
			t.Errorf("told: %+v", got)
		}
	}
	left := func(what string, n, uses int) {
		t.Helper()
		if len(tables.remembered.Entries) != n || len(tables.uses.Entries) != uses {
			t.Errorf("%s: %v and %v are left", what, tables.remembered.Entries, tables.uses.Entries)
		}
	}
	if err := a.Apply(nil, true); err != nil {
		t.Fatal(err)
	}
	tables.pods.Entries[7] = pod{IP4: client.As4()}

	program(web(one, two))
	ask()
	tell()
	program(web(one)) // the other one left: what was known can still be asked
	if e := remembered("a former one", 1)[0]; !e.Former || e.Backend != one {
		t.Errorf("%+v", e)
	}
	if err := a.Remember(nil, remembered("a former one", 1)); err != nil {
		t.Fatal(err)
	}
	left("dropped", 0, 0)

	ask()
	tell()
	program(web(two))
	remembered("its endpoint left", 0)
	left("its endpoint left", 0, 0)

	program(web(one, two))
	ask()
	tell()
	stale := remembered("told", 1)
	program(web(two))
	program(web(one, two))
	if err := a.Remember(stale, nil); err != nil {
		t.Fatal(err)
	}
	left("told too late", 0, 0)

	ask()
	tell()
	delete(tables.pods.Entries, 7)
	remembered("the pod is gone", 0)
	left("the pod is gone", 0, 0)

	tables.pods.Entries[7] = pod{IP4: client.As4()}
	ask()
	tell()
	tables.uses.Entries[memoryKey{99, client.As16()}] = 1 // somebody was interrupted
	remembered("told", 1)
	left("told", 1, 1)
	clear(tables.uses.Entries)
	if e := remembered("one that never leads", 1)[0]; e.Backend.IsValid() {
		t.Errorf("%+v", e)
	}
	tell()
	b := k.agent("v1", &bpf.Life{}) // another agent
	if err := b.Apply(map[model.Name][]service.Frontend{{Name: "web"}: {web(one, two)}}, true); err != nil {
		t.Fatal(err)
	}
	a = b
	remembered("by another agent", 1)

	program(web(one, two), func() service.Frontend { // another Service without affinity keeps nobody
		f := web(one)
		f.Addr, f.Affinity = netip.MustParseAddrPort("10.100.0.2:80"), 0
		return f
	}())
	short := web(one, two)
	short.Affinity = affinity.Least - 1
	program(short)
	if _, there := tables.frontends.Entries[addressOf(at, model.TCP)]; there {
		t.Error("a frontend that remembers too briefly is led")
	}
	remembered("too brief", 0)
	left("too brief", 0, 0)
}
