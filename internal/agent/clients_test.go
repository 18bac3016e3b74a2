package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/service/affinity"
)

// fakeClients is both memories: what nft notes, and what the socket path was told.
type fakeClients struct {
	*fakeApplier
	told  chan []affinity.Entry
	fails chan error
}

func (f *fakeClients) Notes() (map[affinity.Client]affinity.Note, error) {
	select {
	case err := <-f.fails:
		return nil, err
	default:
	}
	return map[affinity.Client]affinity.Note{{}: {Backend: netip.MustParseAddrPort("10.1.0.1:80"), Left: time.Hour}}, nil
}

func (f *fakeClients) Renew([]affinity.Renewal) (map[affinity.Client]bool, error) { return nil, nil }
func (f *fakeClients) Now() (time.Duration, error)                                { return time.Hour, nil }
func (f *fakeClients) Remembered() ([]affinity.Entry, error) {
	return []affinity.Entry{{Timeout: 2 * time.Hour}}, nil
}

func (f *fakeClients) Remember(keep, _ []affinity.Entry) error {
	select {
	case f.told <- keep:
	default:
	}
	return nil
}

// Whoever asked at the socket is told what nft knows, also after an error.
func TestClientsAreCarriedToTheSocket(t *testing.T) {
	f := &fakeClients{newFakeApplier(), make(chan []affinity.Entry, 1), make(chan error, 1)}
	f.fails <- errors.New("busy")
	startWith(t, func(w *world, c *Config) { c.Socket, c.Notes = f, f }, node("a"), svc(1), slice(1, "a", "b"))
	select {
	case got := <-f.told:
		if len(got) != 1 || got[0].Backend != netip.MustParseAddrPort("10.1.0.1:80") || got[0].Until != 2*time.Hour {
			t.Errorf("told %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing")
	}
	if len(f.fails) > 0 {
		t.Error("nft's notes were never asked for in vain")
	}
}
