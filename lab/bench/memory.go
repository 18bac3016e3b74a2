package bench

import (
	"context"
	"time"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// The figures of memory.
const (
	pss    = "PSS"
	each   = "PSS for each Service"
	charge = "cgroup, kernel memory included"
	heap   = "Go heap in use"
)

// few is the load that memory for each Service is counted from.
const few = 10

// memory is what a program holds at rest, when every Service has been programmed.
func memory() benchmark {
	return benchmark{
		name: "memory", what: "memory at rest: proportional set size of the program's processes, what each Service adds to it beyond 10, what the kernel charges to its cgroup (its tables and maps included), and Go's heap by its own word",
		loads: func(e effort) []load { return pairs(e.sizes) }, peers: programs,
		metrics: func(_ effort, l load) []metric {
			out := []metric{{pss, "MB"}, {charge, "MB"}, {heap, "MB"}}
			if l.Services > few {
				out = append(out, metric{each, "B"})
			}
			return out
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error { return r.memory(s, n) })
		},
	}
}

func (r *run) memory(s *stage, n *node) error {
	bytes, err := n.peer.PSS()
	if err != nil {
		return err
	}
	r.record.add(s.key(n.kind, pss), "MB", float64(bytes)/1e6)
	if s.load.Services == few {
		r.least[n.kind] = bytes
	} else if least, known := r.least[n.kind]; known {
		r.record.add(s.key(n.kind, each), "B", (float64(bytes)-float64(least))/float64(s.load.Services-few))
	} else {
		r.record.note(s.key(n.kind, each), "B", "not measured with 10 Services in this run")
	}
	charged, counted, err := n.peer.CgroupMemory()
	if err != nil {
		return err
	}
	if counted {
		r.record.add(s.key(n.kind, charge), "MB", float64(charged)/1e6)
	} else {
		r.record.note(s.key(n.kind, charge), "MB", "no cgroup counts memory on this machine")
	}
	return r.heapInUse(s, n)
}

func (r *run) heapInUse(s *stage, n *node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := n.peer.Metrics(ctx)
	if err != nil {
		return err
	}
	m := all["go_memstats_heap_inuse_bytes"].GetMetric()
	if len(m) == 0 {
		r.record.note(s.key(n.kind, heap), "MB", "the program does not tell")
		return nil
	}
	r.record.add(s.key(n.kind, heap), "MB", m[0].GetGauge().GetValue()/1e6)
	return nil
}

// leastMemory is PSS with few Services.
type leastMemory map[peer.Kind]uint64
