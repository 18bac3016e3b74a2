//go:build kernel

package nft_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

func (d dataplane) renew(list ...affinity.Renewal) map[affinity.Client]bool {
	d.t.Helper()
	var refused map[affinity.Client]bool
	d.w.in(d.t, d.w.node, func() (err error) {
		refused, err = d.applier.Renew(list)
		return err
	})
	return refused
}

func (d dataplane) notes() map[affinity.Client]affinity.Note {
	d.t.Helper()
	var out map[affinity.Client]affinity.Note
	d.w.in(d.t, d.w.node, func() (err error) {
		out, err = d.applier.Notes()
		return err
	})
	return out
}

// Notes that others write are as those that packets make.
func TestNotesAreRenewed(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		d.update("all", s.all(hours, s.four()...))
		group := service.Key{Addr: netip.MustParseAddrPort(at(s.cluster, 80)), Protocol: model.TCP}
		of := func(client string) affinity.Client {
			return affinity.Client{Group: group, Addr: netip.MustParseAddr(client)}
		}
		note := func(client, backend string, left time.Duration, there bool) affinity.Renewal {
			return affinity.Renewal{Client: of(client), Note: affinity.Note{Backend: netip.MustParseAddrPort(target(backend)), Left: left}, There: there}
		}
		holds := func(what, client, backend string, left time.Duration) {
			t.Helper()
			got := d.notes()[of(client)]
			if got.Backend != netip.MustParseAddrPort(target(backend)) || got.Left > left || got.Left < left-time.Minute {
				t.Errorf("%s: %v, want %s for %s", what, got, backend, left)
			}
		}
		first := s.who(t, s.world.podA, at(s.cluster, 80))
		other := s.podB
		if first == other {
			other = s.remote
		}
		if refused := d.renew(note(s.podA, first, 2*time.Hour, true), note(s.podB, s.remote, time.Hour, false)); len(refused) > 0 {
			t.Errorf("refused: %v", refused)
		}
		holds("renewed", s.podA, first, 2*time.Hour)
		holds("made", s.podB, s.remote, time.Hour)
		if got := s.spread(t, s.world.podB, at(s.cluster, 80)); len(got) != 1 || got[0] != s.remote {
			t.Errorf("who was noted by hand is sent to %v", got)
		}
		holds("by a packet", s.podB, s.remote, 3*time.Hour)

		// One that came meanwhile, one that went, and one that is as it was.
		refused := d.renew(note(s.podA, other, time.Hour, false), note(s.out, other, time.Hour, true), note(s.podB, s.remote, 30*time.Minute, true))
		if len(refused) != 2 || !refused[of(s.podA)] || !refused[of(s.out)] {
			t.Errorf("refused: %v", refused)
		}
		holds("the other one", s.podB, s.remote, 30*time.Minute)
		holds("refused", s.podA, first, 2*time.Hour)
		if got := s.spread(t, s.world.podA, at(s.cluster, 80)); len(got) != 1 || got[0] != first {
			t.Errorf("%v, want %s", got, first)
		}

		// One whose endpoint has left since: if it was sent elsewhere it stays there.
		others := slices.DeleteFunc(s.four(), func(e model.Endpoint) bool { return e.Addr.String() == first })
		d.update("all", s.all(hours, others...))
		second := s.who(t, s.world.podA, at(s.cluster, 80))
		if refused := d.renew(note(s.podA, first, time.Hour, true)); !refused[of(s.podA)] {
			t.Errorf("refused: %v", refused)
		}
		holds("sent elsewhere", s.podA, second, 3*time.Hour)
		readable(t, s.nft(t, "list", "ruleset"))
		var repaired bool
		d.w.in(t, d.w.node, func() (err error) {
			repaired, err = d.applier.Audit()
			return err
		})
		if repaired {
			t.Error("what we wrote was taken for somebody else's")
		}
	})
}
