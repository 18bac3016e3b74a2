package bench

import (
	"fmt"
	"slices"
	"time"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// part is one benchmark at one load.
type part struct {
	benchmark benchmark
	load      load
	cost      time.Duration // about how long it takes
	done      bool
}

// Part is one that is done, as files of figures have it.
type Part struct {
	Benchmark string   `json:"benchmark"`
	Services  int      `json:"services"`
	Endpoints int      `json:"endpoints"` // of each Service
	Peers     []string `json:"peers"`
}

// plan is what is to be done, the small loads first; at each, what makes its own worlds goes before
// what shares them.
func (r *run) plan() (out []part) {
	var loads []load
	for _, b := range benchmarks() {
		if r.wants(b) {
			loads = append(loads, b.loads(r.effort)...)
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return a.Services*a.Endpoints - b.Services*b.Endpoints })
	for _, l := range slices.Compact(loads) {
		var alone, first, rest []part
		for _, b := range benchmarks() {
			if !r.wants(b) || !slices.Contains(b.loads(r.effort), l) {
				continue
			}
			peers := r.able(b, l)
			p := part{benchmark: b, load: l, cost: b.cost(r, l, b.roundsOf(r.Rounds), len(peers)), done: r.allDone(b, l)}
			switch {
			case b.alone:
				alone = append(alone, p)
			case b.first:
				first = append(first, p)
			default:
				rest = append(rest, p)
			}
		}
		shared := append(first, rest...)
		for i := range shared {
			if !shared[i].done { // it has the worlds made
				shared[i].cost += r.opening(l)
				break
			}
		}
		out = append(append(out, alone...), shared...)
	}
	return out
}

// able are the peers that can take part.
func (r *run) able(b benchmark, l load) (out []peer.Kind) {
	for _, k := range r.Peers {
		if b.peers(k) && r.tooSlow(k, l) == "" {
			out = append(out, k)
		}
	}
	return out
}

// opening is about how long it takes until every peer has done all Services: seconds for worlds and
// objects; and kube-proxy's nftables mode takes 0.3 s for 1,000 Services, 100 times that for 10,000.
func (r *run) opening(l load) time.Duration {
	out := time.Second
	for _, k := range r.Peers {
		if r.tooSlow(k, l) != "" {
			continue
		}
		out += 500*time.Millisecond + time.Duration(l.Services)*60*time.Microsecond
		if k == peer.KubeProxyNFT {
			out += time.Duration(l.Services) * time.Duration(l.Services) * 300 * time.Nanosecond
		}
	}
	return out
}

// progress says what is next, and about how long everything that is left takes.
func (r *run) progress(next *part) {
	var done, left time.Duration
	number := 1
	for i := range r.parts {
		p := &r.parts[i]
		if p == next {
			number = i + 1
		}
		if p.done && !r.allDone(p.benchmark, p.load) {
			done += p.cost
		}
		if !p.done {
			left += p.cost
		}
	}
	spent := time.Since(r.begun)
	// What was found out about this machine so far counts for the rest.
	if done > time.Minute {
		left = time.Duration(float64(left) * float64(spent) / float64(done))
	}
	fmt.Fprintf(r.Log, "[%d of %d; %s, %s left] %s: %v\n", number, len(r.parts), spent.Round(time.Second), left.Round(time.Second), next.benchmark.name, next.load)
}

// done tells whether an earlier run has a peer's figures.
func (r *run) done(b benchmark, l load, k peer.Kind) bool {
	return slices.ContainsFunc(r.Before.Done, func(p Part) bool {
		return p.Benchmark == b.name && p.Services == l.Services && p.Endpoints == l.Endpoints && slices.Contains(p.Peers, string(k))
	})
}

// allDone tells whether it has everybody's, save those that are not to be tried.
func (r *run) allDone(b benchmark, l load) bool {
	for _, k := range r.partakers(b, l) {
		if !r.done(b, l, k) {
			return false
		}
	}
	return true
}

// partakers are those that are to be tried; also those that turn out to be too slow.
func (r *run) partakers(b benchmark, l load) (out []peer.Kind) {
	for _, k := range append([]peer.Kind{harness}, r.Peers...) {
		if b.peers(k) && r.leftOut(k, l) == "" {
			out = append(out, k)
		}
	}
	return out
}

// doneParts are those of this run and of earlier ones. Who failed has not done his.
func (r *run) doneParts() []Part {
	out := slices.Clone(r.Before.Done)
	for _, p := range r.parts {
		if !p.done || r.allDone(p.benchmark, p.load) {
			continue
		}
		done := Part{p.benchmark.name, p.load.Services, p.load.Endpoints, nil}
		for _, k := range r.partakers(p.benchmark, p.load) {
			if !r.broken[broken{"", p.load, k}] && !r.broken[broken{p.benchmark.name, p.load, k}] {
				done.Peers = append(done.Peers, string(k))
			}
		}
		out = append(out, done)
	}
	return out
}
