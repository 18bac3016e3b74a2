package routes

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

// Reasons for which nothing can be planned.
const (
	InvalidSpec     = "InvalidSpec"
	ServiceNotFound = "ServiceNotFound"
	NotRouted       = "ServiceNotRouted" // headless or of type ExternalName: there is no address to route
	LocalTraffic    = "LocalTraffic"     // internalTrafficPolicy: Local
)

// Look prepares an outlook on what is in the tables, and on the demand that is measured.
func Look(snap *state.Snapshot, s outlook.Settings, measured func(svc model.Name, v6 bool) *model.Demand, now time.Time) *outlook.Outlook {
	s.Namespaces = snap.NamespaceModes()
	return outlook.New(s, outlook.Facts{
		Nodes: slices.Collect(snap.Nodes()),
		CPU: func(pod model.Name) int64 {
			p, _ := snap.Pod(pod)
			return p.MilliCPU
		},
		Measured: measured,
		Now:      now,
	})
}

// judge says all that there is to say of a name; false if there is neither a Service nor a ZoneRoute.
func (k *Keeper) judge(o *outlook.Outlook, snap *state.Snapshot, name model.Name) (verdict, bool) {
	svc, exists := snap.Service(name)
	zr, has := k.route(snap, name)
	if !exists && !has {
		return verdict{}, false
	}
	if !exists {
		svc.Name = name
	}
	v := verdict{}
	if has {
		v.Service = o.Service(svc, snap.Slices(name), &zr)
	} else {
		v.Service = o.Service(svc, snap.Slices(name), nil)
	}
	invalid := func(reason, problem string) { v.reason, v.Problem, v.Families = reason, problem, nil }
	switch why, known := snap.Unserved(name); {
	case !exists && known:
		invalid(NotRouted, fmt.Sprintf("Service %s: %s", name, why))
	case !exists:
		invalid(ServiceNotFound, fmt.Sprintf("Service %s: not found; a ZoneRoute has the name of its Service", name))
	case has && zr.Invalid != "":
		invalid(InvalidSpec, fmt.Sprintf("ZoneRoute %s: %s", name, zr.Invalid))
	case v.Problem != "" && svc.InternalLocal:
		invalid(LocalTraffic, v.Problem)
	case v.Problem != "":
		invalid(InvalidSpec, v.Problem)
	}
	v.carried = v.Mode == model.Optimal && carried(v.Service, snap.Slices(name))
	if v.Mode != model.Optimal {
		for i := range v.Families {
			v.Families[i].HintSet.Of = nil // nobody asks for it, and there are thousands
		}
	}
	return v, true
}

// route returns a ZoneRoute as it is, or will be as soon as our own write comes back.
func (k *Keeper) route(snap *state.Snapshot, name model.Name) (model.ZoneRoute, bool) {
	zr, has := snap.Route(name)
	if w, ok := k.written[name]; ok && has && w.uid == zr.UID && time.Now().Before(w.until) && differs(zr.Status, w.status) {
		zr.Status = w.status
		k.again(name, w.until)
	} else if ok {
		delete(k.written, name)
	}
	return zr, has
}

// want puts on the list of writes what a Service's ZoneRoute lacks.
func (k *Keeper) want(snap *state.Snapshot, name model.Name, now time.Time) {
	delete(k.pending, name)
	v := k.verdicts[name]
	zr, has := k.route(snap, name)
	if h, ok := k.held[name]; ok {
		if h.had == has && now.Before(h.until) {
			k.again(name, h.until)
			return
		}
		delete(k.held, name)
	}
	_, exists := snap.Service(name)
	wanted := exists && v.Mode != model.Off
	s := status(v, zr.Status, zr.Generation, k.evidence(v), now)
	k.tell(v, s)
	switch {
	case !has && wanted:
		k.pending[name] = job{name: name, kind: create}
	case !has:
	case !wanted && untouched(zr):
		k.pending[name] = job{name: name, kind: remove, uid: zr.UID}
	default:
		if differs(zr.Status, s) {
			k.pending[name] = job{name: name, kind: write, uid: zr.UID, status: s, before: zr.Status}
		}
	}
}

// untouched tells whether we made a ZoneRoute, and nobody has given it an intent since.
func untouched(zr model.ZoneRoute) bool {
	return zr.Automatic && zr.Invalid == "" && reflect.DeepEqual(zr.Spec, model.RouteSpec{})
}

// evidence gathers what is known of a Service besides its plan.
func (k *Keeper) evidence(v verdict) evidence {
	e := evidence{agents: -1, carried: v.carried}
	if k.Delivery != nil && v.Mode == model.Optimal {
		e.standing, e.why = k.Delivery.Standing()
	}
	switch {
	case k.Traffic != nil:
		e.agents = k.Traffic.Agents()
	case k.Metered != nil && k.Metered.Nodes() > 0: // else perhaps they have not reported yet
		e.agents = k.Metered.Nodes()
	}
	for _, f := range v.Families {
		if pairs, ok := k.counted(v.Name, v.Mode, f); ok {
			e.counted = append(e.counted, seen{f.V6, pairs})
		}
		if g := k.gauges[flow{v.Name, f.V6}]; g != nil {
			e.traffic = append(e.traffic, *g)
		} else {
			e.traffic = append(e.traffic, gauge{})
		}
	}
	return e
}

// counted returns where connections went since the plan came into force: by the meter where there is
// one, else by what agents are asked.
func (k *Keeper) counted(svc model.Name, mode model.Mode, f outlook.Family) ([]route.Counted, bool) {
	if k.Metered != nil && mode == model.Optimal {
		if pairs, ok := k.Metered.Counted(svc, f.V6, f.At.Add(settling)); ok {
			return pairs, true
		}
	}
	if k.Traffic == nil {
		return nil, false
	}
	return k.Traffic.Counted(svc, f.V6, f.At)
}

// carried tells whether every ready endpoint of a Service carries the hints that it should.
func carried(s outlook.Service, all []model.Slice) bool {
	for _, f := range s.Families {
		for _, x := range all {
			if x.V6 != f.V6 || len(f.HintSet.Of) == 0 {
				continue
			}
			for _, e := range x.Endpoints {
				has := hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}
				if want, ok := f.HintSet.Of[e.Addr]; ok && e.Ready && !has.Equal(want) {
					return false
				}
			}
		}
	}
	return true
}
