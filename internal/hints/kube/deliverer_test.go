package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/zonewise/zonewise/internal/hints"
)

// server is what the watchman sees of an API server: how long a write takes, and what comes of it.
type server struct {
	mu         sync.Mutex
	managers   []string // whom the webhook is asked about
	bundle     string
	puts       int           // that changed something
	took       time.Duration // of every write that the webhook is asked about
	without    time.Duration // of the others
	deaf       bool          // hints do not come back
	err        error         // of every write that the webhook is asked about
	all        error         // of every write
	tampered   bool          // the registration is not as put left it, until put again
	stubborn   bool          // and not even then
	unremoved  int           // removals that fail
	readsError error         // of real
}

func (s *server) put(_ context.Context, bundle []byte, managers ...string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.bundle != string(bundle) || !slices.Equal(s.managers, managers) || s.tampered
	if changed {
		s.puts++
	}
	s.managers, s.bundle = managers, string(bundle)
	s.tampered = s.tampered && s.stubborn
	return changed, nil
}

func (s *server) whole(_ context.Context, bundle []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.managers) == 2 && s.bundle == string(bundle)
}

func (s *server) remove(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unremoved > 0 {
		s.unremoved--
		return errors.New("no answer")
	}
	s.managers = nil
	return nil
}

func (s *server) dry(ctx context.Context, manager, _ string) result {
	s.mu.Lock()
	asked := slices.Contains(s.managers, manager)
	r := result{took: s.without, err: s.all}
	if asked {
		r = result{took: max(s.took, s.without), err: errors.Join(s.err, s.all), hinted: !s.deaf && !s.tampered}
	}
	s.mu.Unlock()
	select {
	case <-time.After(r.took):
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	r.hinted = r.hinted && r.err == nil
	return r
}

func (s *server) real(context.Context, string) error { return s.readsError }

func (s *server) change(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *server) asks(manager string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.managers, manager)
}

// watched runs a deliverer against a server, in a bubble, and gives the test what was said so far.
func watched(t *testing.T, s *server, w *world, f func(d *Deliverer, said func() string)) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var mu sync.Mutex
		var events []string
		d := New(Config{
			Client: client, Namespace: "ns", Source: w, Log: quiet, Changed: func() {},
			Handler: NewHandler(NewPlanner(w), quiet), Keys: NewKeys(client, "ns", Host("ns"), quiet),
			Say: func(warning bool, reason, message string) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, fmt.Sprintf("%s: %s", reason, message))
			},
		})
		d.prober, d.entry = s, s
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		f(d, func() string {
			mu.Lock()
			defer mu.Unlock()
			out := strings.Join(events, "\n")
			events = nil
			return out
		})
		stop()
		<-done
	})
}

func wanting() *world { return &world{api: newAPI(nil), want: ownZones("a")} }

func after(d time.Duration) { <-time.After(d) }

func TestNothingIsRegisteredUntilItIsWantedAndTried(t *testing.T) {
	s, w := &server{readsError: errors.New("patch: refused")}, wanting()
	w.set(nil)
	watched(t, s, w, func(d *Deliverer, said func() string) {
		after(time.Minute)
		if s.puts != 0 || d.Status().Reason != Idle || said() != "" {
			t.Errorf("%d puts, %+v", s.puts, d.Status())
		}
		w.set(ownZones("a"))
		after(10 * time.Second)
		if s.asks(managedByStock) || s.asks(managedByProbe) || d.Status().Reason != Fails {
			t.Errorf("%+v, the webhook is asked about %v", d.Status(), s.managers)
		}
		if got := said(); !strings.Contains(got, "patch: refused. Withdrawn for 1m0s") {
			t.Error(got)
		}
		s.change(func(s *server) { s.readsError = nil })
		after(time.Minute)
		if !s.asks(managedByStock) || !d.Status().Delivering {
			t.Errorf("%+v, the webhook is asked about %v", d.Status(), s.managers)
		}
		w.set(nil)
		after(5 * time.Second)
		if s.asks(managedByStock) || d.Status().Reason != Idle {
			t.Errorf("%+v, the webhook is asked about %v", d.Status(), s.managers)
		}
	})
}

func TestAWebhookThatDoesHarmIsWithdrawn(t *testing.T) {
	for _, c := range []struct {
		what   string
		harm   func(*server)
		reason string
		says   string
	}{
		{"hangs", func(s *server) { s.took, s.deaf = time.Second, true }, Lags, "came back without hints after 1s, 3 times"},
		{"is slow", func(s *server) { s.took = lag }, Lags, "a write took 500ms, 3 times"},
		{"has writes fail", func(s *server) { s.err = errors.New("internal error") }, Fails, "internal error, 3 times"},
		{"has writes hang", func(s *server) { s.took = time.Hour }, Lags, "deadline"},
		{"is not reached", func(s *server) { s.deaf = true }, Fails, "without hints after 0s, 3 times"},
		{"cannot be put right", func(s *server) { s.tampered, s.stubborn = true, true }, Fails, "without hints after 0s, 3 times"},
		{"and is hard to remove", func(s *server) { s.deaf, s.unremoved = true, 3 }, Fails, "3 times"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := &server{}
			watched(t, s, wanting(), func(d *Deliverer, said func() string) {
				after(10 * time.Second)
				if !d.Status().Delivering || !s.asks(managedByStock) {
					t.Fatalf("%+v", d.Status())
				}
				said()
				after(time.Millisecond) // the worst moment: right after a probe
				s.change(c.harm)
				broke := time.Now()
				for s.asks(managedByStock) && time.Since(broke) < time.Minute {
					after(10 * time.Millisecond)
				}
				if took := time.Since(broke); took > 10*time.Second {
					t.Errorf("withdrawn after %v", took)
				}
				synctest.Wait()
				if got := d.Status(); got.Delivering || got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
					t.Errorf("status %+v", got)
				}
				if got := said(); !strings.Contains(got, c.reason+": ") || !strings.Contains(got, c.says) {
					t.Errorf("said %q", got)
				}
			})
		})
	}
}

// Each time it is tried again later, and no event repeats in between.
func TestBackoff(t *testing.T) {
	s := &server{deaf: true}
	watched(t, s, wanting(), func(d *Deliverer, said func() string) {
		after(3 * time.Hour)
		var waits []string
		for line := range strings.Lines(said()) {
			_, wait, _ := strings.Cut(strings.TrimSpace(line), "Withdrawn for ")
			waits = append(waits, wait)
		}
		want := []string{"1m0s", "2m0s", "4m0s", "8m0s", "16m0s", "30m0s", "30m0s", "30m0s", "30m0s"}
		if len(waits) < len(want) || !slices.Equal(waits[:len(want)], want) {
			t.Errorf("waits of %v", waits)
		}
		s.change(func(s *server) { s.deaf = false })
		after(31 * time.Minute)
		if !d.Status().Delivering {
			t.Fatalf("%+v", d.Status())
		}
		after(proven + time.Minute)
		said()
		s.change(func(s *server) { s.deaf = true })
		after(10 * time.Second)
		if got := said(); !strings.Contains(got, "Withdrawn for 1m0s") {
			t.Errorf("after a good while: %q", got)
		}
	})
}

// One probe that fails is nothing, and a bad registration is put right.
func TestSmallTroubles(t *testing.T) {
	s := &server{}
	watched(t, s, wanting(), func(d *Deliverer, said func() string) {
		after(10 * time.Second)
		said()
		s.change(func(s *server) { s.deaf = true })
		after(period + time.Millisecond)
		s.change(func(s *server) { s.deaf = false })
		after(time.Minute)
		if got := said(); got != "" || !d.Status().Delivering {
			t.Errorf("said %q", got)
		}
		s.change(func(s *server) { s.tampered = true })
		after(10 * time.Second)
		if got := said(); !strings.HasPrefix(got, Repaired+": ") || strings.Contains(got, "\n") || !d.Status().Delivering {
			t.Errorf("said %q", got)
		}
		if err := d.config.Client.CoreV1().Secrets("ns").Delete(t.Context(), SecretName, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		before := s.bundle
		after(10 * time.Second)
		if got := said(); got != "" || s.bundle == before || !d.Status().Delivering {
			t.Errorf("a new certificate: said %q, %+v", got, d.Status())
		}
		s.change(func(s *server) { s.managers = nil }) // somebody removed it
		after(10 * time.Second)
		if got := said(); !strings.HasPrefix(got, Repaired+": ") || !s.asks(managedByStock) {
			t.Errorf("said %q", got)
		}
	})
}

// Writes that fail without us, too, are nothing that a withdrawal would mend.
func TestOthersAreToBlame(t *testing.T) {
	for what, harm := range map[string]func(*server){
		"all writes fail":     func(s *server) { s.all = errors.New("somebody's policy says no") },
		"all writes are slow": func(s *server) { s.without = 600 * time.Millisecond },
	} {
		t.Run(what, func(t *testing.T) {
			s := &server{}
			watched(t, s, wanting(), func(d *Deliverer, said func() string) {
				after(10 * time.Second)
				said()
				s.change(harm)
				after(5 * time.Minute)
				if got := said(); !strings.HasPrefix(got, WritesFail+": ") || strings.Contains(got, "\n") {
					t.Errorf("said %q", got)
				}
				if !s.asks(managedByStock) || d.Status().Reason != WritesFail {
					t.Errorf("%+v", d.Status())
				}
				s.change(func(s *server) { s.all, s.without = nil, 0 })
				after(10 * time.Second)
				if d.Status().Reason != Delivering {
					t.Errorf("%+v", d.Status())
				}
			})
		})
	}
}

func TestSlowAnswersAndRefusedTouchesCount(t *testing.T) {
	s := &server{}
	watched(t, s, wanting(), func(d *Deliverer, said func() string) {
		after(10 * time.Second)
		for range 200 {
			d.config.Handler.slowest.Store(int64(2 * lag))
			after(100 * time.Millisecond)
		}
		if got := said(); !strings.Contains(got, Lags+": an answer took 1s, 3 times") {
			t.Errorf("said %q", got)
		}
		after(2 * time.Minute)
		if !d.Status().Delivering {
			t.Fatalf("%+v", d.Status())
		}
		for range strikes {
			d.refuse(errors.New("slice default/web-1: internal error"))
		}
		after(period + time.Millisecond)
		if got := d.Status(); got.Reason != Fails || !strings.Contains(got.Message, "slice default/web-1: internal error") {
			t.Errorf("%+v", got)
		}
	})
}

// A new leader goes on where the last one left off, without a gap.
func TestTheNextLeaderAdopts(t *testing.T) {
	s, w := &server{}, wanting()
	client := fake.NewClientset()
	synctest.Test(t, func(t *testing.T) {
		lead := func(for_ time.Duration) {
			d := New(Config{Client: client, Namespace: "ns", Source: w, Log: quiet, Changed: func() {},
				Handler: NewHandler(NewPlanner(w), quiet), Keys: NewKeys(client, "ns", Host("ns"), quiet),
				Say: func(bool, string, string) {}})
			d.prober, d.entry = s, s
			ctx, stop := context.WithTimeout(t.Context(), for_)
			defer stop()
			d.Run(ctx)
			if !d.Status().Delivering {
				t.Errorf("%+v", d.Status())
			}
		}
		lead(time.Minute)
		if !s.asks(managedByStock) {
			t.Error("the registration must outlive a leader")
		}
		before := s.puts
		lead(time.Second)
		if s.puts != before {
			t.Errorf("the second leader changed the registration %d times", s.puts-before)
		}
		w.err = errors.New("tables are not complete") // nothing is known: nothing is changed
		w.set(nil)
		d := New(Config{Client: client, Namespace: "ns", Source: w, Log: quiet, Changed: func() {},
			Handler: NewHandler(NewPlanner(w), quiet), Keys: NewKeys(client, "ns", Host("ns"), quiet), Say: func(bool, string, string) {}})
		d.prober, d.entry = s, s
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		d.Run(ctx)
		if !s.asks(managedByStock) {
			t.Error("withdrawn without knowing whether it is wanted")
		}
	})
}

// The whole of it against an API server that admits: hints come, change, and go.
func TestDelivery(t *testing.T) {
	w := &world{}
	h := NewHandler(NewPlanner(w), quiet)
	w.api = newAPI(h, stock("web-1", 1, "a", "b"), stock("web-2", 11, "c", "-"))
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Client: w.api, Namespace: "ns", Source: w, Log: quiet, Changed: func() {}, Handler: h,
			Keys: NewKeys(w.api, "ns", Host("ns"), quiet), Say: func(bool, string, string) {}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		expect := func(what, one, two string) {
			t.Helper()
			d.Look(web)
			after(time.Minute)
			if got := carried(t, w.api, "web-1") + "; " + carried(t, w.api, "web-2"); got != one+"; "+two {
				t.Errorf("%s: %q, want %q", what, got, one+"; "+two)
			}
		}
		expect("not wanted", "- -", "- -")
		w.set(ownZones("a", "b", "c"))
		expect("wanted", "a b", "c "+hints.NoZone)
		before := w.api.writes
		expect("as before", "a b", "c "+hints.NoZone)
		d.toucher.all()
		expect("looked at again", "a b", "c "+hints.NoZone)
		if w.api.writes != before {
			t.Errorf("%d writes though all is as it should be", w.api.writes-before)
		}
		w.set(map[string]hints.Hint{"a": {Zones: []string{"a", "c"}}, "b": {Zones: []string{"b"}}, "c": {Zones: []string{"c"}}})
		expect("changed", "a,c b", "c "+hints.NoZone)
		w.set(nil)
		expect("not wanted any more", "- -", "- -")
		if _, err := w.api.Tracker().Get(configuration, "", ConfigurationName); err == nil {
			t.Error("still registered")
		}
		stop()
		<-done
	})
}

// A machine that is slow for a moment is slow for all, and nothing is said of it.
func TestASlowMomentIsNobodysFault(t *testing.T) {
	s := &server{}
	watched(t, s, wanting(), func(d *Deliverer, said func() string) {
		after(10 * time.Second)
		said()
		for range 20 {
			s.change(func(s *server) { s.took, s.without = 1200*time.Millisecond, 900*time.Millisecond })
			after(3 * time.Second)
			s.change(func(s *server) { s.took, s.without = 0, 0 })
			after(5 * time.Second)
		}
		if got := said(); got != "" || !d.Status().Delivering {
			t.Errorf("said %q, %+v", got, d.Status())
		}
	})
}
