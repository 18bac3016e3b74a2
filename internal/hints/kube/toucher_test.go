package kube

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// registered is an API that asks the webhook about everything.
func registered(t *testing.T, w *world, objects ...*discoveryv1.EndpointSlice) *toucher {
	t.Helper()
	w.api = newAPI(NewHandler(NewPlanner(w), quiet))
	for _, s := range objects {
		w.api.bump(s)
		if err := w.api.Tracker().Add(s); err != nil {
			t.Fatal(err)
		}
	}
	w.api.writes = 0
	r := registration{client: w.api, namespace: "ns"}
	if _, err := r.put(t.Context(), []byte("x"), managedByStock, managedByProbe); err != nil {
		t.Fatal(err)
	}
	return newToucher(w.api, w, quiet)
}

func settle(t *testing.T, touch *toucher) (writes int) {
	t.Helper()
	for writes = 0; ; writes++ {
		wrote, err := touch.sync(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		if !wrote {
			return writes
		}
		if writes > 50 {
			t.Fatal("never settles")
		}
	}
}

func TestWithdrawnHintsStayWhileTheyAreRight(t *testing.T) {
	w := &world{want: ownZones("a", "b")}
	touch := registered(t, w, stock("web-1", 1, "a", "b"))
	settle(t, touch)
	touch.active = func() bool { return false }
	if n := settle(t, touch); n != 0 || carried(t, w.api, "web-1") != "a b" {
		t.Errorf("%d writes, %q", n, carried(t, w.api, "web-1"))
	}
	w.set(map[string]hints.Hint{"a": {Zones: []string{"a", "b"}}, "b": {Zones: []string{"b"}}})
	if err := (registration{client: w.api}).remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if settle(t, touch); carried(t, w.api, "web-1") != "- -" {
		t.Errorf("out of date, yet there: %q", carried(t, w.api, "web-1"))
	}
}

func TestHintsOfOthersStay(t *testing.T) {
	s := stock("web-1", 1, "a")
	s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
	s.Annotations = map[string]string{Annotation: "1234"} // we were here, but these are not the hints that we put on
	w := &world{}
	touch := registered(t, w, s)
	if n := settle(t, touch); n != 0 || carried(t, w.api, "web-1") != "a" {
		t.Errorf("%d writes, %q", n, carried(t, w.api, "web-1"))
	}
	if n, err := Sweep(t.Context(), w.api); n != 0 || err != nil || carried(t, w.api, "web-1") != "a" {
		t.Errorf("swept %d, error %v, %q", n, err, carried(t, w.api, "web-1"))
	}
	if mark := w.Slices(web)[0].HintMark; mark != "" {
		t.Errorf("our mark %q stays", mark)
	}
}

func TestSweep(t *testing.T) {
	w := &world{want: ownZones("a", "b")}
	settle(t, registered(t, w, stock("web-1", 1, "a"), stock("web-2", 2, "b")))
	if err := (registration{client: w.api}).remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, err := Sweep(t.Context(), w.api)
	if n != 2 || err != nil || carried(t, w.api, "web-1")+carried(t, w.api, "web-2") != "--" {
		t.Errorf("swept %d, error %v", n, err)
	}
	for _, s := range w.Slices(web) {
		if s.HintMark != "" {
			t.Errorf("%s is still marked", s.Name)
		}
	}
}

func TestLeave(t *testing.T) {
	w := &world{want: ownZones("a", "b")}
	settle(t, registered(t, w, stock("web-1", 1, "a")))
	if _, err := NewKeys(w.api, "ns", Host("ns"), quiet).Ensure(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.api.Tracker().Add(probeSlice("ns", managedByProbe, "left behind")); err != nil {
		t.Fatal(err)
	}
	for round, want := range []int{1, 0} { // what is gone is no error
		n, err := Leave(t.Context(), w.api, "ns")
		if n != want || err != nil {
			t.Fatalf("round %d: %d slices, error %v", round, n, err)
		}
		secrets, _ := w.api.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
		configurations, _ := w.api.AdmissionregistrationV1().MutatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
		slices, _ := w.api.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{})
		if len(secrets.Items)+len(configurations.Items) != 0 || len(slices.Items) != 1 || carried(t, w.api, "web-1") != "-" {
			t.Errorf("left: %v, %v, %v", secrets.Items, configurations.Items, slices.Items)
		}
	}
}

// Before the tables are complete a slice is left alone, which is nothing to complain of.
func TestTheToucherWaitsForTables(t *testing.T) {
	w := &world{want: ownZones("a"), err: errors.New("waiting for the API server to list [nodes]")}
	touch := registered(t, w, stock("web-1", 1, "a"))
	var log bytes.Buffer
	touch.log = slog.New(slog.NewTextHandler(&log, nil))
	touch.queue.Add(web)
	touch.next(t.Context())
	if log.Len() > 0 || touch.queue.NumRequeues(web) > 0 || carried(t, w.api, "web-1") != "-" {
		t.Errorf("%d failures, %q, log:\n%s", touch.queue.NumRequeues(web), carried(t, w.api, "web-1"), log.String())
	}
	w.mu.Lock()
	w.err = nil
	w.mu.Unlock()
	touch.next(t.Context()) // it comes back by itself
	if carried(t, w.api, "web-1") != "a" {
		t.Errorf("%q", carried(t, w.api, "web-1"))
	}
}

func TestATouchThatFails(t *testing.T) {
	w := &world{want: ownZones("a")}
	touch := registered(t, w, stock("web-1", 1, "a"))
	var heard []error
	touch.failed = func(err error) { heard = append(heard, err) }
	w.api.refuse = apierrors.NewInternalError(errors.New("the patch does not apply"))
	if _, err := touch.sync(t.Context(), web); !apierrors.IsInternalError(errors.Unwrap(err)) || len(heard) != 1 || heard[0] == nil {
		t.Errorf("error %v, heard %v", err, heard)
	}
	w.api.refuse = nil
	if _, err := touch.sync(t.Context(), web); err != nil || len(heard) != 2 || heard[1] != nil {
		t.Errorf("error %v, heard %v", err, heard)
	}
	w.set(ownZones("b", "a"))
	if err := (registration{client: w.api}).remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.set(map[string]hints.Hint{"a": {Zones: []string{"b"}}})
	if err := touch.touch(t.Context(), model.Name{Namespace: "default", Name: "gone"}); err != nil {
		t.Errorf("a slice that is gone: %v", err)
	}
	fresh := stock("web-2", 5, "a")
	w.api.bump(fresh)
	if err := w.api.Tracker().Add(fresh); err != nil {
		t.Fatal(err)
	}
	if err := touch.touch(t.Context(), model.Name{Namespace: "default", Name: "web-2"}); !errors.Is(err, errNoHints) {
		t.Errorf("nobody was asked, but error is %v", err)
	}
}

// A write that is refused without hints, too, is no fault of ours, whether the slice has any yet or
// not. Others hear of it once. One that is refused for its hints is ours.
func TestWhoIsToBlame(t *testing.T) {
	for name, has := range map[string]bool{"hinted": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			w := &world{want: ownZones("a")}
			touch := registered(t, w, stock("web-1", 1, "a", "b"))
			if has {
				settle(t, touch)
			}
			var ours, others []error
			touch.failed = func(err error) {
				if err != nil {
					ours = append(ours, err)
				}
			}
			touch.others = func(err error) { others = append(others, err) }
			before := carried(t, w.api, "web-1")
			w.set(map[string]hints.Hint{"a": {Zones: []string{"b"}}})
			w.api.others = apierrors.NewForbidden(sliceKind.GroupResource(), "web-1", errors.New("policy 'somebody' denied request"))
			for range 3 {
				if _, err := touch.sync(t.Context(), web); err == nil {
					t.Fatal("no error")
				}
			}
			if len(ours) != 0 || len(others) != 1 || !strings.Contains(others[0].Error(), "slice default/web-1: ") || !strings.Contains(others[0].Error(), "somebody") {
				t.Errorf("blamed on us: %v, on others: %v", ours, others)
			}
			if got := carried(t, w.api, "web-1"); got != before {
				t.Errorf("a trial stored %q", got)
			}
			w.api.others, w.api.refuse = nil, apierrors.NewForbidden(sliceKind.GroupResource(), "web-1", errors.New("hints are not allowed"))
			if _, err := touch.sync(t.Context(), web); err == nil || len(ours) != 1 || len(others) != 1 {
				t.Errorf("error %v; blamed on us: %v, on others: %v", err, ours, others)
			}
		})
	}
}

// While slices are under way, a write of the stock controller takes no step before its turn and
// loses no hint; endpoints that are new get theirs at once.
func TestAnswerUnderWay(t *testing.T) {
	w := &world{want: ownZones("a", "b")}
	touch := registered(t, w, stock("web-1", 1, "a", "a"), stock("web-2", 11, "b", "b"))
	settle(t, touch)
	w.set(map[string]hints.Hint{"a": {Zones: []string{"b"}}, "b": {Zones: []string{"a"}}})
	p := NewPlanner(w)
	steps := 0
	for _, name := range []string{"web-1", "web-2"} {
		s, err := fromAPI(stock(name, map[string]int{"web-1": 1, "web-2": 11}[name], "a", "a", "a"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Endpoints {
			s.Endpoints[i].Zone = map[string]string{"web-1": "a", "web-2": "b"}[name]
		}
		got, err := p.Hints(web, false, s.model())
		if err != nil || len(got) != 3 {
			t.Fatalf("%v, error %v", got, err)
		}
		first := netip.MustParseAddr(s.Endpoints[0].Addresses[0])
		final := map[string]string{"web-1": "b", "web-2": "a"}[name]
		if h := got[first]; len(h.Zones) != 1 || h.Zones[0] == final {
			steps++
		}
		for addr, h := range got {
			if len(h.Zones) == 0 {
				t.Errorf("%s: %s lost its hints", name, addr)
			}
		}
	}
	if steps != 1 {
		t.Errorf("%d slices take a step at once, want 1", steps)
	}
	w.err = errors.New("no tables")
	if _, err := p.Hints(web, false, model.Slice{}); err == nil {
		t.Error("an answer without tables")
	}
	if got, err := p.Hints(model.Name{Namespace: "default"}, false, model.Slice{}); got != nil || err != nil {
		t.Error("a slice of no Service is none of our business")
	}
}

func TestProbeAgainstAnAPIThatAdmits(t *testing.T) {
	w := &world{}
	registered(t, w)
	p := prober{w.api, "ns"}
	if err := p.real(t.Context(), "word"); err != nil {
		t.Error(err)
	}
	if r := p.dry(t.Context(), managedByProbe, "word"); r.bad() != "" {
		t.Error(r.bad())
	}
	if r := p.dry(t.Context(), managedByControl, "word"); r.err != nil || r.hinted {
		t.Errorf("%+v", r)
	}
	if list, _ := w.api.Tracker().List(sliceKind, sliceKind.GroupVersion().WithKind("EndpointSlice"), "ns"); len(list.(*discoveryv1.EndpointSliceList).Items) != 0 {
		t.Error("a probe is left behind")
	}
	if err := (registration{client: w.api}).remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.real(t.Context(), "word"); err == nil {
		t.Error("well, though nobody is asked")
	}
}
