package state

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/model"
)

func TestARouteIsNewsAboutItsService(t *testing.T) {
	tb := New()
	other := model.Name{Namespace: "other", Name: "a"}
	route := func(n model.Name, mode model.Mode) model.ZoneRoute {
		return model.ZoneRoute{Name: n, Spec: model.RouteSpec{Mode: mode}}
	}
	seen := uint64(0)
	for _, s := range []struct {
		what string
		do   func(*Tx)
		want []string
	}{
		{"a service", func(tx *Tx) { tx.PutService(model.Service{Name: name("a")}) }, []string{"a"}},
		{"its route", func(tx *Tx) { tx.PutRoute(route(name("a"), model.Optimal)) }, []string{"a"}},
		{"the same again", func(tx *Tx) { tx.PutRoute(route(name("a"), model.Optimal)) }, []string{}},
		{"another intent", func(tx *Tx) { tx.PutRoute(route(name("a"), model.Off)) }, []string{"a"}},
		{"a route without a service", func(tx *Tx) { tx.PutRoute(route(name("ghost"), "")) }, []string{"ghost"}},
		{"one of another namespace", func(tx *Tx) { tx.PutRoute(route(other, "")) }, []string{"a"}},
		{"a route goes", func(tx *Tx) { tx.DeleteRoute(name("a")) }, []string{"a"}},
		{"it is gone already", func(tx *Tx) { tx.DeleteRoute(name("a")) }, []string{}},
	} {
		tb.Update(noon, s.do)
		if diff := cmp.Diff(s.want, services(tb.Snapshot().Changes(seen))); diff != "" {
			t.Errorf("%s: %s", s.what, diff)
		}
		seen = tb.Snapshot().Revision()
	}
	var got []string
	for r := range tb.Snapshot().Routes() {
		got = append(got, r.Name.String())
	}
	if diff := cmp.Diff([]string{"default/ghost", "other/a"}, got); diff != "" {
		t.Error(diff)
	}
	if r, ok := tb.Snapshot().Route(other); !ok || r.Name != other {
		t.Errorf("route %+v, %v", r, ok)
	}
}

// A Service is served or is not, never both, and either is news.
func TestUnserved(t *testing.T) {
	tb := New()
	seen := uint64(0)
	for _, s := range []struct {
		what   string
		do     func(*Tx)
		served bool
		why    string
		news   int
	}{
		{"headless", func(tx *Tx) { tx.PutUnserved(name("a"), "headless") }, false, "headless", 1},
		{"the same again", func(tx *Tx) { tx.PutUnserved(name("a"), "headless") }, false, "headless", 0},
		{"made anew with an address", func(tx *Tx) { tx.PutService(model.Service{Name: name("a")}) }, true, "", 1},
		{"becomes an ExternalName", func(tx *Tx) { tx.PutUnserved(name("a"), "external") }, false, "external", 1},
		{"goes", func(tx *Tx) { tx.DeleteService(name("a")) }, false, "", 1},
		{"is gone", func(tx *Tx) { tx.DeleteService(name("a")) }, false, "", 0},
	} {
		tb.Update(noon, s.do)
		snap := tb.Snapshot()
		_, served := snap.Service(name("a"))
		why, known := snap.Unserved(name("a"))
		if served != s.served || why != s.why || known != (s.why != "") {
			t.Errorf("%s: served %v, unserved %q %v", s.what, served, why, known)
		}
		if got := len(snap.Changes(seen).Services); got != s.news {
			t.Errorf("%s: %d changes, want %d", s.what, got, s.news)
		}
		seen = snap.Revision()
	}
}

func TestNamespaceModes(t *testing.T) {
	tb := New()
	put := func(namespace, service string) func(*Tx) {
		return func(tx *Tx) { tx.PutService(model.Service{Name: model.Name{Namespace: namespace, Name: service}}) }
	}
	for _, n := range []string{"a", "aa", "b"} {
		tb.Update(noon, put(n, n+"1"))
		tb.Update(noon, put(n, n+"2"))
	}
	seen := tb.Snapshot().Revision()
	for _, s := range []struct {
		what    string
		do      func(*Tx)
		mode    model.Mode
		invalid map[string]string
		news    []string
	}{
		{"a mode", func(tx *Tx) { tx.PutNamespace("a", model.Optimal) }, model.Optimal, map[string]string{}, []string{"a1", "a2"}},
		{"the same again", func(tx *Tx) { tx.PutNamespace("a", model.Optimal) }, model.Optimal, map[string]string{}, []string{}},
		{"no mode", func(tx *Tx) { tx.PutNamespace("a", "optimal") }, "", map[string]string{"a": "optimal"}, []string{"a1", "a2"}},
		{"an empty one", func(tx *Tx) { tx.PutNamespace("a", "") }, "", map[string]string{"a": ""}, []string{"a1", "a2"}},
		{"a namespace without services", func(tx *Tx) { tx.PutNamespace("c", model.Off) }, "", map[string]string{"a": ""}, []string{}},
		{"nothing said", func(tx *Tx) { tx.DeleteNamespace("a") }, "", map[string]string{}, []string{"a1", "a2"}},
	} {
		before := tb.Snapshot().Revision()
		tb.Update(noon, s.do)
		snap := tb.Snapshot()
		if got := snap.Mode("a"); got != s.mode {
			t.Errorf("%s: mode %q, want %q", s.what, got, s.mode)
		}
		if diff := cmp.Diff(s.invalid, snap.InvalidModes()); diff != "" {
			t.Errorf("%s: invalid: %s", s.what, diff)
		}
		if diff := cmp.Diff(s.news, services(snap.Changes(seen))); diff != "" {
			t.Errorf("%s: changes: %s", s.what, diff)
		}
		if s.what == "a namespace without services" && snap.Revision() == before {
			t.Error("it wakes nobody")
		}
		seen = snap.Revision()
	}
	if diff := cmp.Diff(map[string]model.Mode{"c": model.Off}, tb.Snapshot().NamespaceModes()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c"}, slices.Collect(tb.Snapshot().Namespaces())); diff != "" {
		t.Error(diff)
	}
}

func TestPodsWakeButAreNoNewsAboutServices(t *testing.T) {
	tb := New(Pods)
	tb.Update(noon, func(tx *Tx) { tx.PutPod(model.Pod{Name: name("p1"), MilliCPU: 100}); tx.Initialised(Pods) })
	snap := tb.Snapshot()
	tb.Update(noon, func(tx *Tx) { tx.PutPod(model.Pod{Name: name("p1"), MilliCPU: 100}) })
	if tb.Snapshot() != snap {
		t.Error("the same pod again is news")
	}
	tb.Update(noon, func(tx *Tx) { tx.PutPod(model.Pod{Name: name("p1"), MilliCPU: 250}) })
	<-snap.Changed()
	if p, ok := tb.Snapshot().Pod(name("p1")); !ok || p.MilliCPU != 250 {
		t.Errorf("pod %+v, %v", p, ok)
	}
	if c := tb.Snapshot().Changes(0); len(c.Services)+len(c.Nodes) != 0 {
		t.Errorf("changes %+v", c)
	}
	tb.Update(noon, func(tx *Tx) { tx.DeletePod(name("p1")) })
	if n := len(slices.Collect(tb.Snapshot().Pods())); n != 0 {
		t.Errorf("%d pods are left", n)
	}
}

func BenchmarkFill100000Pods(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tb := New(Pods)
		tb.Update(noon, func(tx *Tx) {
			for i := range 100000 {
				tx.PutPod(model.Pod{Name: name(fmt.Sprintf("app-5d4f6c7b8-%05d", i)), Node: "n1", MilliCPU: 100})
			}
			tx.Initialised(Pods)
		})
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100000, "B/pod")
		runtime.KeepAlive(tb)
	}
}
