package routes

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/hints/kube"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/state"
)

// Source answers what hints Services should carry. It knows nothing but the tables, in which the
// plan in force stands, so that every replica answers alike.
type Source struct {
	tables   *state.Tables
	settings func() outlook.Settings

	mu   sync.Mutex
	last *outlook.Outlook // on the snapshot
	of   *state.Snapshot
	at   time.Time
}

// NewSource returns a source that answers from the tables, by the settings of the moment.
func NewSource(t *state.Tables, s func() outlook.Settings) *Source {
	return &Source{tables: t, settings: s}
}

// Any tells whether a plan is in force; it is not known before the tables are complete.
func (s *Source) Any() (wanted, known bool) {
	snap := s.tables.Snapshot()
	if len(snap.Missing()) > 0 {
		return false, false
	}
	for r := range snap.Routes() {
		if r.Status.Mode == model.Optimal {
			return true, true
		}
	}
	return false, true
}

// Services returns the names of all that have slices.
func (s *Source) Services() []model.Name {
	names := map[model.Name]bool{}
	for x := range s.tables.Snapshot().AllSlices() {
		names[x.ServiceName()] = true
	}
	out := make([]model.Name, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.SortFunc(out, model.Name.Compare)
	return out
}

// Slices returns all slices of a Service.
func (s *Source) Slices(svc model.Name) []model.Slice { return s.tables.Snapshot().Slices(svc) }

// Target returns the hints for a Service's endpoints of one family, given its slices of that
// family; false if it is not ours to give any.
func (s *Source) Target(name model.Name, v6 bool, all []model.Slice) (kube.Target, bool, error) {
	snap := s.tables.Snapshot()
	if missing := snap.Missing(); len(missing) > 0 {
		return kube.Target{}, false, fmt.Errorf("waiting for the API server to list %v", missing)
	}
	svc, exists := snap.Service(name)
	zr, has := snap.Route(name)
	if !exists || !has || zr.Invalid != "" || !mayBeOptimal(snap, zr, s.settings()) {
		return kube.Target{}, false, nil
	}
	v := s.look(snap).Service(svc, all, &zr)
	if v.Mode != model.Optimal || v.Problem != "" {
		return kube.Target{}, false, nil
	}
	for _, f := range v.Families {
		if f.V6 == v6 {
			clients := hints.Clients(slices.Collect(snap.Nodes()), f.Demand.Shares)
			return kube.Target{Set: f.HintSet, Clients: clients, Plan: f.RoutePlan}, true, nil
		}
	}
	return kube.Target{}, false, nil
}

// mayBeOptimal spares all others a look.
func mayBeOptimal(snap *state.Snapshot, zr model.ZoneRoute, s outlook.Settings) bool {
	for _, m := range []model.Mode{zr.Spec.Mode, snap.Mode(zr.Namespace), s.Default} {
		if m != "" {
			return m == model.Optimal
		}
	}
	return false
}

// look returns an outlook on a snapshot; one that was made a moment ago will do.
func (s *Source) look(snap *state.Snapshot) *outlook.Outlook {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.of != snap || now.Sub(s.at) > time.Second {
		measured := func(svc model.Name, v6 bool) *model.Demand {
			zr, _ := snap.Route(svc)
			return standing(zr.Status, v6)
		}
		s.last, s.of, s.at = Look(snap, s.settings(), measured, now), snap, now
	}
	return s.last
}
