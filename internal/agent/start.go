package agent

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// The garbage collector's settings, in percent: a collection begins when the heap has grown by so
// much since the last one.
const (
	usualGC  = 100 // Go's default
	hastyGC  = 400
	tooFewTo = 64 // Services for which it does not pay to plan on several cores
)

// hurry makes the garbage collector rarer until the first sync is done: nearly all that is made until
// then are decoded objects, which are garbage soon, while the tables only grow. It takes a quarter of the
// time away, and about as much memory again, which is given back at the end. Who
// has set GOGC knows better.
func (p *programmer) hurry(ctx context.Context) {
	if before := debug.SetGCPercent(hastyGC); before != usualGC {
		debug.SetGCPercent(before)
		return
	}
	select {
	case <-p.first:
	case <-ctx.Done():
	}
	debug.SetGCPercent(usualGC)
	debug.FreeOSMemory()
}

// planAll plans every Service, on every core.
func planAll(node model.Node, snap *state.Snapshot) map[model.Name][]service.Frontend {
	all := snap.Served()
	plans := make([][]service.Frontend, len(all))
	workers := max(1, min(runtime.GOMAXPROCS(0), len(all)/tooFewTo))
	var wg sync.WaitGroup
	for w := range workers {
		from, to := w*len(all)/workers, (w+1)*len(all)/workers
		wg.Go(func() {
			for i := from; i < to; i++ {
				plans[i] = service.Plan(node, *all[i].Service, all[i].Slices(), all[i].Route)
			}
		})
	}
	wg.Wait()
	out := make(map[model.Name][]service.Frontend, len(all))
	for i := range all {
		out[all[i].Service.Name] = plans[i]
	}
	return out
}
