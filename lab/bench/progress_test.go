package bench

import (
	"strings"
	"testing"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// TestPlan: what is done is not done again, and whoever failed has not done it.
func TestPlan(t *testing.T) {
	c := Short()
	c.Peers, c.Only = []peer.Kind{peer.Zonewise, peer.KubeProxyNFT}, []string{"churn", "memory", "cold-start"}
	fresh := func(before []Part) *run {
		r := &run{Config: c, record: newRecord(), broken: map[broken]bool{}}
		r.Before.Done = before
		r.parts = r.plan()
		return r
	}
	r := fresh(nil)
	var names []string
	for i := range r.parts {
		p := &r.parts[i]
		if p.done || p.cost <= 0 {
			t.Errorf("%s, %v: done %v, cost %v", p.benchmark.name, p.load, p.done, p.cost)
		}
		names = append(names, p.benchmark.name+" "+thousands(p.load.Services))
		p.done = true
	}
	if got, want := strings.Join(names, ", "), "cold-start 10, memory 10, cold-start 1,000, memory 1,000, churn 1,000"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	r.broken[broken{"churn", r.parts[4].load, peer.Zonewise}] = true
	again := fresh(r.doneParts())
	for i, p := range again.parts {
		if want := i < 4; p.done != want {
			t.Errorf("again: %s, %v: done %v, want %v", p.benchmark.name, p.load, p.done, want)
		}
	}
	churned := again.parts[4]
	if again.done(churned.benchmark, churned.load, peer.Zonewise) || !again.done(churned.benchmark, churned.load, peer.KubeProxyNFT) {
		t.Errorf("%+v", again.Before.Done)
	}
}

// TestLeftOut: who takes minutes for a load is not tried, unless there is patience.
func TestLeftOut(t *testing.T) {
	r := &run{slow: map[peer.Kind]slowness{peer.Zonewise: {load{Services: 100, Endpoints: 2}, "slow"}}}
	for _, c := range []struct {
		kind    peer.Kind
		load    load
		patient bool
		want    string
	}{
		{peer.KubeProxyNFT, load{Services: 10_000, Endpoints: 2}, false, ""},
		{peer.KubeProxyNFT, load{Services: 50_000, Endpoints: 2}, false, "not tried with more than 10,000 Services"},
		{peer.KubeProxyNFT, load{Services: 50_000, Endpoints: 2}, true, ""},
		{peer.KubeProxyIPTables, load{Services: 1_000, Endpoints: 2}, false, ""},
		{peer.KubeProxyIPTables, load{Services: sticky, Endpoints: 1_000}, false, "not tried with more than 2,000 endpoints"},
		{peer.ZonewiseNFT, load{Services: 100_000, Endpoints: 2}, false, ""},
		{peer.Zonewise, load{Services: 100, Endpoints: 2}, true, "slow"},
		{peer.Zonewise, load{Services: 8, Endpoints: 1_000}, true, ""},
		{peer.Zonewise, load{Services: 1_000, Endpoints: 1}, true, "slow"},
	} {
		r.Patient = c.patient
		if got := r.tooSlow(c.kind, c.load); got != c.want {
			t.Errorf("%s, %v: %q, want %q", c.kind, c.load, got, c.want)
		}
	}
}

// TestResumed: what is measured again takes the place of what was there, and nothing else does.
func TestResumed(t *testing.T) {
	old, keys := sample()
	r := newRecord()
	r.before(old.Rows)
	if m, ok := r.median(keys[1]); !ok || m != 20 {
		t.Errorf("median %v, %v", m, ok)
	}
	r.add(keys[1], "µs", 5)
	rows := r.rows()
	sortRows(rows, Names(), peer.Kinds())
	if len(rows) != 3 || rows[0].Median != 5 || rows[1] != old.Rows[1] || rows[2] != old.Rows[2] {
		t.Errorf("%+v", rows)
	}
}
