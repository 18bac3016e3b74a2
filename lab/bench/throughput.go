package bench

import (
	"fmt"
	"net/netip"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

const datagrams = "UDP, 64 bytes each"

// throughput is what goes through connections that are open, and how many datagrams arrive.
func throughput() benchmark {
	return benchmark{
		name: "throughput", what: "bytes through open connections, and small datagrams that arrive, from a pod; CPU time is the whole machine's",
		loads: func(e effort) []load { return pairs(e.streamSizes) }, peers: everybody,
		metrics: func(e effort, _ load) (out []metric) {
			for _, streams := range e.streams {
				out = append(out, streamMetrics(streams)...)
			}
			return append(out, metric{datagrams, "1/s"})
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				for _, streams := range r.streams {
					before, err := busy()
					if err != nil {
						return err
					}
					reply, err := n.do(inPod, driver.Job{Task: driver.Stream, Targets: []netip.AddrPort{n.specialTarget(sink())}, Workers: streams, Length: r.length})
					if err != nil {
						return err
					}
					after, err := busy()
					if err != nil {
						return err
					}
					m := streamMetrics(streams)
					r.record.add(s.key(n.kind, m[0].name), m[0].unit, float64(reply.Done)*8/1e9/reply.Took.Seconds())
					r.record.add(s.key(n.kind, m[1].name), m[1].unit, (after-before)*1e9/float64(reply.Done))
				}
				arrived, err := r.arrived(n)
				if err != nil {
					return err
				}
				r.record.add(s.key(n.kind, datagrams), "1/s", arrived)
				return nil
			})
		},
	}
}

func streamMetrics(streams int) []metric {
	name := fmt.Sprintf("TCP, %d streams", streams)
	if streams == 1 {
		name = "TCP, 1 stream"
	}
	return []metric{{name, "Gb/s"}, {"CPU of " + name, "s/GB"}}
}

// arrived is how many datagrams a second the server counts.
func (r *run) arrived(n *node) (float64, error) {
	count := func() (sum uint64, err error) {
		for _, p := range n.servers {
			reply, err := p.Do(driver.Job{Task: driver.Tell})
			if err != nil {
				return 0, err
			}
			sum += reply.Done
		}
		return sum, nil
	}
	before, err := count()
	if err != nil {
		return 0, err
	}
	reply, err := n.do(inPod, driver.Job{Task: driver.Blast, Targets: []netip.AddrPort{n.specialTarget(drain())}, Length: r.length})
	if err != nil {
		return 0, err
	}
	after, err := count()
	if err == nil && after == before {
		err = fmt.Errorf("%s: of %d datagrams none arrived", n.kind, reply.Done)
	}
	return float64(after-before) / reply.Took.Seconds(), err
}
