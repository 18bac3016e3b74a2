package bench

import (
	"context"
	"fmt"
	"time"
)

// The figures of memory.
const (
	rss      = "RSS"
	pss      = "PSS"
	rssEach  = "RSS for each Service"
	heap     = "Go heap in use"
	heapEach = "Go heap for each Service"
	charge   = "cgroup, kernel memory included"
)

// few is the load that memory for each Service is counted from.
const few = 10

// A program is at rest when its memory has stayed within 1 % for as long as steady; a program that
// never does so is taken as it is after patience.
const (
	steady   = 4 * time.Second
	patience = time.Minute
	glance   = 200 * time.Millisecond // between two looks
)

// memory is what a program holds at rest, when every Service has been programmed.
func memory() benchmark {
	return benchmark{
		name: "memory", what: "memory at rest, when it has not changed for 4 s after every Service was programmed: what is resident of the program's processes (RSS), the same with shared pages divided among those who share them (PSS), Go's heap by its own word with what it has not collected yet, what each Service adds to that beyond 10, and what the kernel charges to its cgroup, tables and maps in the kernel included",
		loads: func(e effort) []load { return pairs(e.sizes) }, peers: programs, most: 1, first: true,
		metrics: func(_ effort, l load) []metric {
			out := []metric{{rss, "MB"}, {pss, "MB"}, {heap, "MB"}, {charge, "MB"}}
			if l.Services > few {
				out = append(out, metric{rssEach, "B"}, metric{heapEach, "B"})
			}
			return out
		},
		cost: func(_ *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers) * (steady + 2*time.Second)
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error { return r.memory(s, n) })
		},
	}
}

func (r *run) memory(s *stage, n *node) error {
	resident, err := n.atRest()
	if err != nil {
		return err
	}
	r.megabytes(s, n, rss, resident)
	r.forEach(s, n, rssEach, rss)
	shared, err := n.peer.PSS()
	if err != nil {
		return err
	}
	r.megabytes(s, n, pss, shared)
	charged, counted, err := n.peer.CgroupMemory()
	if err != nil {
		return err
	}
	if counted {
		r.megabytes(s, n, charge, charged)
	} else {
		r.record.note(s.key(n.kind, charge), "MB", "no cgroup counts memory on this machine")
	}
	return r.heapInUse(s, n)
}

// atRest waits until memory stays as it is, and returns how much it is.
func (n *node) atRest() (uint64, error) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	begin := time.Now()
	since, first := begin, uint64(0)
	for {
		now, err := n.peer.RSS()
		if err != nil {
			return 0, err
		}
		if now > first+first/100 || now < first-first/100 {
			since, first = time.Now(), now
		}
		if time.Since(since) >= steady || time.Since(begin) >= patience {
			return now, nil
		}
		<-tick.C
	}
}

func (r *run) megabytes(s *stage, n *node, name string, bytes uint64) {
	r.record.add(s.key(n.kind, name), "MB", float64(bytes)/1e6)
}

// forEach records what each Service adds to a figure beyond what it is with few.
func (r *run) forEach(s *stage, n *node, name, of string) {
	if s.load.Services <= few {
		return
	}
	key := s.key(n.kind, of)
	now, _ := r.record.median(key)
	key.services = few
	if least, known := r.record.median(key); known {
		r.record.add(s.key(n.kind, name), "B", (now-least)*1e6/float64(s.load.Services-few))
	} else {
		r.record.note(s.key(n.kind, name), "B", fmt.Sprintf("not measured with %d Services in this run", few))
	}
}

func (r *run) heapInUse(s *stage, n *node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := n.peer.Metrics(ctx)
	if err != nil {
		return err
	}
	m := all["go_memstats_heap_alloc_bytes"].GetMetric()
	if len(m) == 0 {
		r.record.note(s.key(n.kind, heap), "MB", "the program does not tell")
		return nil
	}
	r.megabytes(s, n, heap, uint64(m[0].GetGauge().GetValue()))
	r.forEach(s, n, heapEach, heap)
	return nil
}
