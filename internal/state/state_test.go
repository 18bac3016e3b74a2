package state

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func name(s string) model.Name { return model.Name{Namespace: "default", Name: s} }

func slice(s, service, addr string) model.Slice {
	return model.Slice{Name: name(s), Service: service,
		Endpoints: []model.Endpoint{{Addr: netip.MustParseAddr(addr), Ready: true}}}
}

func services(c Changes) []string {
	out := []string{}
	for _, s := range c.Services {
		out = append(out, s.Of.Name)
	}
	return out
}

func TestASnapshotNeverChanges(t *testing.T) {
	tb := New()
	before := tb.Snapshot()
	tb.Update(noon, func(tx *Tx) {
		tx.PutService(model.Service{Name: name("a")})
		tx.PutSlice(slice("a-1", "a", "10.0.0.1"))
	})
	if _, ok := before.Service(name("a")); ok || len(before.Slices(name("a"))) != 0 {
		t.Error("an older snapshot sees newer rows")
	}
	after := tb.Snapshot()
	if _, ok := after.Service(name("a")); !ok || len(after.Slices(name("a"))) != 1 {
		t.Error("a newer snapshot does not see the rows")
	}
	select {
	case <-before.Changed():
	default:
		t.Error("nobody was told")
	}
}

func TestSlicesOfOneServiceOnly(t *testing.T) {
	tb := New()
	tb.Update(noon, func(tx *Tx) {
		tx.PutSlice(slice("web-1", "web", "10.0.0.1"))
		tx.PutSlice(slice("web-2", "web", "10.0.0.2"))
		tx.PutSlice(slice("web2-1", "web2", "10.0.0.3"))
		other := slice("web-1", "web", "10.0.0.4")
		other.Namespace = "defaul"
		tx.PutSlice(other)
	})
	var got []string
	for _, s := range tb.Snapshot().Slices(name("web")) {
		got = append(got, s.Name.Name)
	}
	if diff := cmp.Diff([]string{"web-1", "web-2"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestChangesNameOnlyWhatChanged(t *testing.T) {
	tb := New()
	tb.Update(noon, func(tx *Tx) {
		for i := range 100 {
			tx.PutService(model.Service{Name: name(fmt.Sprintf("s%02d", i))})
		}
		tx.PutSlice(slice("s07-1", "s07", "10.0.0.1"))
		tx.PutSlice(slice("moving", "s01", "10.0.0.9"))
	})
	seen := tb.Snapshot().Revision()
	tb.Forget(seen)

	steps := []struct {
		what string
		do   func(*Tx)
		want []string
	}{
		{"the same again", func(tx *Tx) { tx.PutSlice(slice("s07-1", "s07", "10.0.0.1")) }, []string{}},
		{"an endpoint", func(tx *Tx) { tx.PutSlice(slice("s07-1", "s07", "10.0.0.2")) }, []string{"s07"}},
		{"a slice moves", func(tx *Tx) { tx.PutSlice(slice("moving", "s02", "10.0.0.9")) }, []string{"s01", "s02"}},
		{"a slice goes", func(tx *Tx) { tx.DeleteSlice(name("s07-1")) }, []string{"s07"}},
		{"a service goes", func(tx *Tx) { tx.DeleteService(name("s05")) }, []string{"s05"}},
		{"it is gone already", func(tx *Tx) { tx.DeleteService(name("s05")) }, []string{}},
		{"a slice before its service", func(tx *Tx) { tx.PutSlice(slice("n-1", "new", "10.0.0.1")) }, []string{"new"}},
		{"twice in one update", func(tx *Tx) {
			tx.PutSlice(slice("n-1", "new", "10.0.0.2"))
			tx.PutSlice(slice("n-1", "new", "10.0.0.3"))
		}, []string{"new"}},
	}
	for _, s := range steps {
		tb.Update(noon, s.do)
		snap := tb.Snapshot()
		if diff := cmp.Diff(s.want, services(snap.Changes(seen))); diff != "" {
			t.Errorf("%s: %s", s.what, diff)
		}
		seen = snap.Revision()
		tb.Forget(seen)
	}
}

func TestNothingNewWakesNobody(t *testing.T) {
	tb := New()
	tb.Update(noon, func(tx *Tx) { tx.PutNode(model.Node{Name: "n1", Zone: "a"}) })
	snap := tb.Snapshot()
	tb.Update(noon, func(tx *Tx) {
		tx.PutNode(model.Node{Name: "n1", Zone: "a"})
		tx.DeleteNode("n2")
	})
	tb.Forget(snap.Revision())
	select {
	case <-snap.Changed():
		t.Fatal("woken for nothing")
	default:
	}
	tb.Update(noon, func(tx *Tx) { tx.PutNode(model.Node{Name: "n1", Zone: "b"}) })
	<-snap.Changed() // also through a Forget in between
	if c := tb.Snapshot().Changes(snap.Revision()); len(c.Nodes) != 1 || c.Nodes[0].Of != "n1" {
		t.Fatalf("changes = %+v", c)
	}
}

func TestSinceIsTheEarliestOpenNews(t *testing.T) {
	tb := New()
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	put := func(s int, addr string) {
		tb.Update(at(s), func(tx *Tx) { tx.PutSlice(slice("a-1", "a", addr)) })
	}
	since := func() time.Time { return tb.Snapshot().Changes(0).Services[0].Since }

	put(1, "10.0.0.1")
	put(2, "10.0.0.2")
	if got := since(); !got.Equal(at(1)) {
		t.Errorf("two open events: since %v, want the first", got)
	}
	seen := tb.Snapshot().Revision()
	put(3, "10.0.0.3") // while the reader was at work
	tb.Forget(seen)
	if got := since(); !got.Equal(at(3)) {
		t.Errorf("first two dealt with: since %v, want the third", got)
	}
	tb.Forget(tb.Snapshot().Revision())
	if c := tb.Snapshot().Changes(0); len(c.Services) != 0 {
		t.Errorf("everything dealt with, yet %+v", c)
	}
}

func TestCompleteOnlyWhenEverySourceIs(t *testing.T) {
	tb := New(Nodes, Services, Slices)
	for _, s := range []Source{Services, Nodes, Services} {
		tb.Update(noon, func(tx *Tx) { tx.Initialised(s) })
	}
	if diff := cmp.Diff([]Source{Slices}, tb.Snapshot().Missing()); diff != "" {
		t.Error(diff)
	}
	snap := tb.Snapshot()
	tb.Update(noon, func(tx *Tx) { tx.Initialised(Slices) })
	<-snap.Changed()
	if m := tb.Snapshot().Missing(); len(m) != 0 {
		t.Errorf("still missing %v", m)
	}
}

// A reader that follows Changes ends up with what a whole read gives, whatever the order of
// updates, reads and forgetting.
func TestFollowingChangesIsAsGoodAsReadingAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tb := New()
		mirror, seen := map[string][]model.Slice{}, uint64(0)
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		read := func(meanwhile bool) {
			snap := tb.Snapshot()
			for _, c := range snap.Changes(seen).Services {
				if s := snap.Slices(c.Of); len(s) > 0 {
					mirror[c.Of.Name] = s
				} else {
					delete(mirror, c.Of.Name)
				}
			}
			if meanwhile {
				tb.Update(noon, func(tx *Tx) { tx.PutSlice(slice("x", names.Draw(rt, "svc"), "10.9.9.9")) })
			}
			seen = snap.Revision()
			tb.Forget(seen)
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "do") {
			case 0:
				s := slice(names.Draw(rt, "slice"), names.Draw(rt, "svc"), fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 3).Draw(rt, "ip")))
				tb.Update(noon, func(tx *Tx) { tx.PutSlice(s) })
			case 1:
				n := names.Draw(rt, "slice")
				tb.Update(noon, func(tx *Tx) { tx.DeleteSlice(name(n)) })
			case 2:
				read(rapid.Bool().Draw(rt, "meanwhile"))
			}
		}
		read(false)
		whole := map[string][]model.Slice{}
		for _, s := range []string{"a", "b", "c"} {
			if sl := tb.Snapshot().Slices(name(s)); len(sl) > 0 {
				whole[s] = sl
			}
		}
		if diff := cmp.Diff(whole, mirror, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestReadersAndWritersTogether(t *testing.T) {
	tb := New()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 500 {
			tb.Update(noon, func(tx *Tx) { tx.PutSlice(slice("a-1", "a", fmt.Sprintf("10.0.%d.%d", i/250, i%250))) })
			tb.Forget(uint64(i / 2))
		}
	}()
	snap := tb.Snapshot()
	readers := make(chan int, 4)
	for range 4 {
		go func() {
			n := 0
			for range 500 {
				n += len(snap.Slices(name("a"))) + len(tb.Snapshot().Changes(0).Services)
				n += len(slices.Collect(snap.Services()))
			}
			readers <- n
		}()
	}
	for range 4 {
		<-readers
	}
	<-done
}

func TestFollowMissesNothing(t *testing.T) {
	tb := New()
	ctx, stop := context.WithCancel(t.Context())
	woken, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		tb.Follow(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	const last = 500
	go func() {
		for i := 1; i <= last; i++ {
			tb.Update(noon, func(tx *Tx) { tx.PutNode(model.Node{Name: "n", Zone: fmt.Sprint(i)}) })
		}
	}()
	for zone := ""; zone != fmt.Sprint(last); {
		<-woken
		n, _ := tb.Snapshot().Node("n")
		zone = n.Zone
	}
	stop()
	<-done
}

func BenchmarkOneEndpointChangesAmong10000Services(b *testing.B) {
	tb := New()
	tb.Update(noon, func(tx *Tx) {
		for i := range 10000 {
			s := fmt.Sprintf("s%d", i)
			tx.PutService(model.Service{Name: name(s)})
			tx.PutSlice(slice(s+"-1", s, "10.0.0.1"))
		}
	})
	seen := tb.Snapshot().Revision()
	tb.Forget(seen)
	for i := 0; b.Loop(); i++ {
		tb.Update(noon, func(tx *Tx) { tx.PutSlice(slice("s77-1", "s77", fmt.Sprintf("10.0.0.%d", 2+i%200))) })
		snap := tb.Snapshot()
		if len(snap.Changes(seen).Services) != 1 {
			b.Fatal("one change expected")
		}
		seen = snap.Revision()
		tb.Forget(seen)
	}
}

func BenchmarkFill100000Services(b *testing.B) {
	for b.Loop() {
		tb := New(Services, Slices)
		tb.Update(noon, func(tx *Tx) {
			for i := range 100000 {
				tx.PutService(model.Service{Name: name(fmt.Sprintf("s%d", i))})
			}
			tx.Initialised(Services)
		})
		tb.Update(noon, func(tx *Tx) {
			for i := range 100000 {
				s := fmt.Sprintf("s%d", i)
				tx.PutSlice(slice(s+"-1", s, "10.0.0.1"))
			}
			tx.Initialised(Slices)
		})
	}
}

// What is adopted is kept as it is: a copy would be most of the work of a first list.
func TestAdoptedRowsAreNotCopied(t *testing.T) {
	tables := New()
	svc := model.Service{Name: model.Name{Namespace: "a", Name: "s"}}
	slice := model.Slice{Name: model.Name{Namespace: "a", Name: "s-1"}, Service: "s"}
	tables.Update(time.Time{}, func(tx *Tx) { tx.AdoptService(&svc); tx.AdoptSlice(&slice) })
	s := tables.Snapshot()
	if s.services.get(svc.Name) != &svc || s.slices.get(slice.Name) != &slice || s.byService.get(ownedBy(&slice)) != &slice {
		t.Error("a row is a copy")
	}
	tables.Update(time.Time{}, func(tx *Tx) { tx.AdoptSlice(&model.Slice{Name: slice.Name, Service: "other"}) })
	if len(tables.Snapshot().Slices(svc.Name)) != 0 {
		t.Error("an adopted slice that moved is still where it was")
	}
}

// Who follows pods hears which of them are others, and nothing of their Services.
func TestPodsThatChangedAreNamed(t *testing.T) {
	tb := New()
	tb.Update(noon, func(tx *Tx) {
		tx.PutPod(model.Pod{Name: name("a"), Node: "n1"})
		tx.PutPod(model.Pod{Name: name("b")})
		tx.PutPod(model.Pod{Name: name("c")})
	})
	before := tb.Snapshot()
	tb.Update(noon, func(tx *Tx) {
		tx.PutPod(model.Pod{Name: name("a"), Node: "n1"}) // as it was
		tx.PutPod(model.Pod{Name: name("b"), Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
		tx.DeletePod(name("c"))
		tx.DeletePod(name("d"))
	})
	after := tb.Snapshot()
	var got []string
	for _, c := range after.Changes(before.Revision()).Pods {
		got = append(got, c.Of.Name)
	}
	if !slices.Equal(got, []string{"b", "c"}) || len(after.Changes(before.Revision()).Services) > 0 {
		t.Errorf("changed: %v, %+v", got, after.Changes(before.Revision()))
	}
	tb.Forget(after.Revision())
	if c := tb.Snapshot().Changes(0); len(c.Pods) > 0 {
		t.Errorf("forgotten, and still there: %v", c.Pods)
	}
}
