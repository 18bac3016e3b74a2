//go:build kernel

package conformance

import (
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/service/affinity"
)

// met is who always answers, and how: by how many of the connections the socket path led.
func (s *stage) met(t *testing.T, from string, to target, v6 bool) (server string, led uint64) {
	t.Helper()
	before := s.led()
	server = s.only(t, from, to, v6)
	return server, s.led() - before
}

func (s *stage) optOut(pods ...netip.Addr) {
	s.t.Helper()
	if err := s.world.Node.Do(func() error { return s.sockets.OptOut(pods) }); err != nil {
		s.t.Fatal(err)
	}
}

// A client is remembered once by both paths, whichever it takes: first nft, then the socket, and nft again.
func TestBothPathsRememberTheSame(t *testing.T) {
	s := newStage(t, bySocket)
	web := svc(1, balanced, external, sticky(long))
	s.set(web, s.behind(web, on("pod2 pod3 remote other")...))
	s.tick() // the node learns who its pods are
	kinds := []target{clusterIP(1), overUDP(clusterIP(1))}
	for _, kind := range outward {
		kinds = append(kinds, kind(1))
	}
	by := func(what, from string, to target, v6 bool, want string, leads bool) string {
		t.Helper()
		got, led := s.met(t, from, to, v6)
		if want != "" && got != want {
			t.Errorf("%s: %s to %s: %s, want %s", what, from, to.what, got, want)
		}
		if (led > 0) != leads {
			t.Errorf("%s: %s to %s: the socket path led %d connections, want any: %v", what, from, to.what, led, leads)
		}
		return got
	}
	for _, v6 := range []bool{false, true} {
		for _, from := range []string{"pod0", "pod1"} {
			for _, to := range kinds {
				at := by("at first", from, to, v6, "", false)
				s.tick()
				by("known", from, to, v6, at, true)
				s.optOut(s.host(from).addr(v6))
				by("opted out", from, to, v6, at, false)
				s.optOut()
				by("as before", from, to, v6, at, true)
			}
		}
		for _, from := range []string{"node", "stranger"} {
			at := by("at first", from, clusterIP(1), v6, "", false)
			s.tick()
			by("never known at the socket", from, clusterIP(1), v6, at, false)
		}
	}
}

// What is led at the socket alone is not forgotten by nft, and is by both in time.
func TestUseAtTheSocketIsUse(t *testing.T) {
	s := newStage(t, bySocket)
	web := svc(1, sticky(affinity.Least))
	s.set(web, s.behind(web, on("pod2 pod3 pod4 remote other")...))
	s.tick()
	at, _ := s.met(t, "pod0", clusterIP(1), false)
	every := time.NewTicker(affinity.Least / 5)
	defer every.Stop()
	for range 8 {
		s.tick()
		if got, led := s.met(t, "pod0", clusterIP(1), false); got != at || led == 0 {
			t.Fatalf("%s, of which %d were led; want %s, led", got, led, at)
		}
		<-every.C
	}
	s.tick()
	s.optOut(s.host("pod0").addr(false))
	if got, led := s.met(t, "pod0", clusterIP(1), false); got != at || led > 0 {
		t.Errorf("nft says %s after %s at the socket; want %s", got, 8*affinity.Least/5, at)
	}
	s.optOut()
	for range 6 { // nobody comes
		<-every.C
		s.tick()
	}
	list, err := s.sockets.Remembered()
	if err != nil || len(list) > 0 {
		t.Errorf("remembered %v, %v: nobody came", list, err)
	}
}
