package agent

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/service"
)

// told is how many faults that come at once get a line of the log each.
const told = 100

// news is a fault that has come up.
type news struct {
	service.Fault
	here bool // it is of this node; other nodes see the objects themselves
}

// faults is what is wrong now, and since when.
type faults struct {
	log *slog.Logger

	mu    sync.Mutex
	since map[service.Fault]time.Time
	here  map[service.Fault]bool
}

// set makes these the faults that there are: those of objects, which every node sees, and those of
// this node alone. It logs what is different, and returns what is new and what is gone.
func (f *faults) set(ofObjects, ofNode []service.Fault, now time.Time) (come []news, gone []service.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since, here := map[service.Fault]time.Time{}, map[service.Fault]bool{}
	for i, list := range [][]service.Fault{ofObjects, ofNode} {
		for _, x := range list {
			if _, twice := since[x]; twice {
				continue
			}
			at, had := f.since[x]
			if !had {
				at = now
				come = append(come, news{x, i == 1})
			}
			since[x], here[x] = at, i == 1
		}
	}
	for x := range f.since {
		if _, still := since[x]; !still {
			gone = append(gone, x)
		}
	}
	slices.SortFunc(come, func(a, b news) int { return a.Compare(b.Fault) })
	slices.SortFunc(gone, service.Fault.Compare)
	f.since, f.here = since, here
	f.tell(come, gone)
	return come, gone
}

func (f *faults) tell(come []news, gone []service.Fault) {
	for i, x := range come {
		if i == told {
			f.log.Warn("more faults", "number", len(come)-told)
			break
		}
		f.log.Warn("fault", "kind", x.Kind, "namespace", x.Object.Namespace, "name", x.Object.Name, "problem", x.Problem)
	}
	for i, x := range gone {
		if i == told {
			f.log.Info("more faults are gone", "number", len(gone)-told)
			break
		}
		f.log.Info("fault is gone", "kind", x.Kind, "namespace", x.Object.Namespace, "name", x.Object.Name, "problem", x.Problem)
	}
}

// list returns the faults that there are, in order.
func (f *faults) list() []service.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Keys(f.since), service.Fault.Compare)
}

func (f *faults) view(node string) view.Faults {
	out := view.Faults{Schema: view.FaultsSchema, Node: node, Faults: []view.Fault{}}
	list := f.list()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range list {
		out.Faults = append(out.Faults, view.Fault{Kind: x.Kind, Namespace: x.Object.Namespace, Name: x.Object.Name,
			Problem: x.Problem, Since: f.since[x], Here: f.here[x]})
	}
	return out
}
