package bench

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

// streamBatch is how long bytes go to a Service, and then to its endpoint, in turn.
const streamBatch = 400 * time.Millisecond

// throughput is what goes through connections that are open, and how many datagrams arrive.
func throughput() benchmark {
	return benchmark{
		name: "throughput", what: "bytes through open connections, and small datagrams that arrive, from a pod; in turn with it, every 0.4 s, the same to the endpoint on the same node; CPU time is the whole machine's",
		loads: func(e effort) []load { return pairs(e.streamSizes) }, peers: everybody,
		metrics: func(e effort, _ load) (out []metric) {
			for _, streams := range e.streams {
				out = append(out, streamMetrics(streams)...)
			}
			return append(out, datagramMetrics()...)
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers*(len(r.streams)+1)*2*r.streamBatches) * (streamBatch + 10*time.Millisecond)
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				for _, streams := range r.streams {
					if err := r.streamsBeside(s, n, streams); err != nil {
						return err
					}
				}
				return r.datagramsBeside(s, n)
			})
		},
	}
}

func streamMetrics(streams int) []metric {
	name := fmt.Sprintf("TCP, %d streams", streams)
	if streams == 1 {
		name = "TCP, 1 stream"
	}
	return []metric{{name, "Gb/s"}, {name + ", to the endpoint, same node", "Gb/s"}, {name + ", of that to the endpoint", "%"}, {"CPU of " + name, "s/GB"}}
}

func datagramMetrics() []metric {
	const name = "UDP, 64 bytes each"
	return []metric{{name, "1/s"}, {name + ", to the endpoint, same node", "1/s"}, {name + ", of those to the endpoint", "%"}}
}

// behindSpecial is a special Service's endpoint.
func behindSpecial(s special) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(s.addrs[0], uint16(s.port))}
}

func (r *run) streamsBeside(s *stage, n *node, streams int) error {
	job := driver.Job{Task: driver.Stream, Workers: streams, Length: streamBatch}
	service, direct, err := n.inTurn(job, r.streamBatches, r.random, []netip.AddrPort{n.specialTarget(sink())}, behindSpecial(sink()))
	if err != nil {
		return err
	}
	m := streamMetrics(streams)
	for i, v := range []float64{service.rate() * 8 / 1e9, direct.rate() * 8 / 1e9, 100 * service.rate() / direct.rate(), service.cpu * 1e9 / service.done} {
		r.record.add(s.key(n.kind, m[i].name), m[i].unit, v)
	}
	return nil
}

func (r *run) datagramsBeside(s *stage, n *node) error {
	var service, direct tally
	for range r.streamBatches {
		for _, to := range []struct {
			targets []netip.AddrPort
			sum     *tally
		}{{[]netip.AddrPort{n.specialTarget(drain())}, &service}, {behindSpecial(drain()), &direct}} {
			reply, err := n.arrived(driver.Job{Task: driver.Blast, Targets: to.targets, Length: streamBatch})
			if err != nil {
				return err
			}
			to.sum.add(reply, 0)
		}
	}
	for i, v := range []float64{service.rate(), direct.rate(), 100 * service.rate() / direct.rate()} {
		m := datagramMetrics()[i]
		r.record.add(s.key(n.kind, m.name), m.unit, v)
	}
	return nil
}

// arrived has datagrams sent, and tells how many of them the servers count.
func (n *node) arrived(j driver.Job) (driver.Reply, error) {
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
		return driver.Reply{}, err
	}
	reply, err := n.do(inPod, j)
	if err != nil {
		return reply, err
	}
	after, err := count()
	if err == nil && after == before {
		err = fmt.Errorf("%s: of %d datagrams none arrived", n.kind, reply.Done)
	}
	reply.Done = after - before
	return reply, err
}
