// Package bench measures Zonewise beside its peers: the same work, on the same machine, in one run.
// Each benchmark is in the file of its name. `make bench` runs them all.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// Config says what to measure, and how much of it.
type Config struct {
	Peers  []peer.Kind
	Only   []string // names of benchmarks; none: all
	Bin    string   // directory of the programs
	Rounds int
	Limit  time.Duration // for a peer to do all Services
	Seed   uint64
	Short  bool
	Log    io.Writer
	// Patient tries also what a peer is known to be too slow for.
	Patient bool
	// Before is what an earlier run found: what it has done is not done again.
	Before Result
	// Save is called with what there is whenever a part is done; nil: it is not.
	Save func(Result) error

	effort
}

// effort is how much is measured in one round, and at which sizes.
type effort struct {
	sizes                      []int // of connect and memory
	rateSizes                  []int
	streamSizes                []int
	changeSizes                []int // of programming and removal
	churnSizes                 []int
	cold                       []load
	affinity                   []int // endpoints
	connects                   int
	flips                      int
	rateBatches, streamBatches int // a round, to Services and as many to endpoints
	removals                   int
	churn                      []int // changes a second
	churnLength                time.Duration
	meterLength                time.Duration // of the agent's load
	workers                    []int         // connections at a time
	streams                    []int
}

// Full is the whole of it, in some forty minutes.
func Full() Config {
	return Config{Rounds: 5, Limit: 10 * time.Minute, Seed: 1, effort: effort{
		sizes: []int{10, 1_000, 10_000, 100_000}, rateSizes: []int{10, 1_000, 10_000, 100_000}, streamSizes: []int{1_000},
		changeSizes: []int{1_000, 10_000, 100_000}, churnSizes: []int{10_000},
		cold:     []load{{Services: 1_000, Endpoints: 2}, {Services: 5_000, Endpoints: 50}, {Services: 10_000, Endpoints: 2}, {Services: 50_000, Endpoints: 2}, {Services: 100_000, Endpoints: 2}},
		affinity: []int{10, 100, 1_000}, connects: 2_000, rateBatches: 3, streamBatches: 2, flips: 20, removals: 5,
		churn: []int{10, 100, 1_000}, churnLength: 10 * time.Second, meterLength: 30 * time.Second, workers: []int{1, 16, 64}, streams: []int{1, 4},
	}}
}

// Short is a little of everything, within five minutes: to see that it works, not for its figures.
func Short() Config {
	return Config{Rounds: 2, Limit: time.Minute, Seed: 1, Short: true, effort: effort{
		sizes: []int{10, 1_000}, rateSizes: []int{1_000}, streamSizes: []int{1_000},
		changeSizes: []int{1_000}, churnSizes: []int{1_000},
		cold:     []load{{Services: 10, Endpoints: 2}, {Services: 1_000, Endpoints: 2}},
		affinity: []int{10, 100}, connects: 200, rateBatches: 1, streamBatches: 1, flips: 2, removals: 1,
		churn: []int{10, 100, 1_000}, churnLength: time.Second, meterLength: 2 * time.Second, workers: []int{1, 16, 64}, streams: []int{1, 4},
	}}
}

// benchmark is one of them.
type benchmark struct {
	name    string
	what    string // for the page
	loads   func(effort) []load
	alone   bool // it makes worlds of its own, rather than sharing those in which every peer runs
	metrics func(effort, load) []metric
	peers   func(peer.Kind) bool
	most    int  // rounds; 0: as many as there are
	first   bool // before anything else that shares its worlds
	run     func(*run, *stage) error
	// cost is about how long it takes, with so many peers.
	cost func(r *run, l load, rounds, peers int) time.Duration
}

func (b benchmark) roundsOf(rounds int) int {
	if b.most > 0 {
		return min(b.most, rounds)
	}
	return rounds
}

// benchmarks in the order in which they are shown.
func benchmarks() []benchmark {
	return []benchmark{overhead(), connect(), rate(), throughput(), coldStart(), programming(), churn(), removals(), memory(), affinity(), metering()}
}

// Names are those of all benchmarks.
func Names() (out []string) {
	for _, b := range benchmarks() {
		out = append(out, b.name)
	}
	return out
}

func pairs(sizes []int) (out []load) {
	for _, n := range sizes {
		out = append(out, load{Services: n, Endpoints: 2})
	}
	return out
}

// run is one that is under way.
type run struct {
	Config
	ctx    context.Context
	record *record
	random *rand.Rand
	cpus   cpus
	parts  []part // in the order in which they are done
	begun  time.Time
	// slow is the load that a peer could not do in time: none is tried that is as large in every way.
	slow map[peer.Kind]slowness
	heap uint64 // after the last collection
	// failed is what went wrong with one peer, while the others went on.
	failed []error
	broken map[broken]bool
}

// broken is who failed where; without a benchmark's name: before any began.
type broken struct {
	benchmark string
	load      load
	peer      peer.Kind
}

// fail notes that a peer went wrong, which ends nobody else's part.
func (r *run) fail(benchmark string, l load, k peer.Kind, err error) {
	r.failed = append(r.failed, fmt.Errorf("%s, %v: %s: %w", cmp.Or(benchmark, "start"), l, k, err))
	r.broken[broken{benchmark, l, k}] = true
}

type slowness struct {
	load load
	why  string
}

// tooSlow is why a load is not tried with a peer; empty: it is.
func (r *run) tooSlow(k peer.Kind, l load) string {
	slow, known := r.slow[k]
	if known && l.Services >= slow.load.Services && l.Services*l.Endpoints >= slow.load.Services*slow.load.Endpoints {
		return slow.why
	}
	return r.leftOut(k, l)
}

// leftOut is why a load is not to be tried with a peer in this run.
func (r *run) leftOut(k peer.Kind, l load) string {
	switch {
	case r.Patient:
	case k == peer.KubeProxyNFT && l.Services > feasibleServices:
		return fmt.Sprintf("not tried with more than %s Services", thousands(feasibleServices))
	case k == peer.KubeProxyIPTables && l.Services*l.Endpoints > feasibleEndpoints:
		return fmt.Sprintf("not tried with more than %s endpoints", thousands(feasibleEndpoints))
	}
	return ""
}

// So many can kube-proxy's modes do, and change one of them, in a time for which a run can wait. Beyond
// that their time grows with the square of the number of Services, or of endpoints.
const (
	feasibleServices  = 10_000 // mode nftables
	feasibleEndpoints = 2_000  // mode iptables
)

// Run measures until ctx ends, and returns what it found also where something went wrong on the way.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{Config: c, ctx: ctx, record: newRecord(), random: rand.New(rand.NewPCG(c.Seed, 1)), cpus: cpus{-1, -1}, slow: map[peer.Kind]slowness{}, broken: map[broken]bool{}, begun: time.Now()}
	r.record.before(c.Before.Rows)
	if runtime.NumCPU() > 1 {
		r.cpus = cpus{0, 1}
	}
	for _, k := range c.Peers {
		if err := peer.Absent(k, c.Bin); err != nil {
			r.slow[k] = slowness{load{}, err.Error()}
		}
	}
	debug.SetGCPercent(-1) // see tidy
	err := r.all()
	err = errors.Join(append(r.failed, err)...)
	result := r.result()
	if err == nil {
		if m := missing(r.want(), result.Rows, c.Short); len(m) > 0 {
			err = fmt.Errorf("%d rows are missing: %q", len(m), m)
		}
	}
	return result, err
}

func (r *run) result() Result {
	out := Result{Schema: Schema, Machine: machine(), Short: r.Short, Rounds: r.Rounds, Rows: r.record.rows(), Done: r.doneParts()}
	sortRows(out.Rows, Names(), append([]peer.Kind{harness}, peer.Kinds()...))
	return out
}

func (r *run) wants(b benchmark) bool { return len(r.Only) == 0 || slices.Contains(r.Only, b.name) }

// want are the rows that must come.
func (r *run) want() (out []key) {
	for _, b := range benchmarks() {
		if !r.wants(b) {
			continue
		}
		for _, l := range b.loads(r.effort) {
			for _, m := range b.metrics(r.effort, l) {
				for _, p := range append([]peer.Kind{harness}, r.Peers...) {
					if b.peers(p) {
						out = append(out, key{b.name, l.Services, m.name, p})
					}
				}
			}
		}
	}
	return out
}

// all goes through the loads, the small ones first, and does at each whatever wants it.
func (r *run) all() error {
	r.parts = r.plan()
	for i := 0; i < len(r.parts); {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		l := r.parts[i].load
		end := i
		for end < len(r.parts) && r.parts[end].load == l {
			end++
		}
		if err := r.at(l, r.parts[i:end]); err != nil {
			return fmt.Errorf("%v: %w", l, err)
		}
		i = end
	}
	return nil
}

// at does what wants a load: with every peer in a world of its own, or in worlds that it makes itself.
func (r *run) at(l load, parts []part) (err error) {
	var shared []benchmark
	for _, p := range parts {
		if !p.benchmark.alone && !p.done {
			shared = append(shared, p.benchmark)
		}
	}
	var snapshot *apiserver.Snapshot
	var s *stage
	for i := range parts {
		p := &parts[i]
		if p.done {
			continue
		}
		r.progress(p)
		if snapshot == nil {
			if snapshot, err = apiserver.Prepare(l.objects()...); err != nil {
				return err
			}
		}
		on := &stage{load: l, snapshot: snapshot}
		if !p.benchmark.alone && s == nil {
			s, err = r.open(l, snapshot, shared)
			defer func() { err = errors.Join(err, s.close()) }()
			if err != nil {
				return err
			}
		}
		if !p.benchmark.alone {
			on = s
		}
		on.benchmark = p.benchmark
		if err := p.benchmark.run(r, on); err != nil {
			return fmt.Errorf("%s: %w", p.benchmark.name, err)
		}
		p.done = true
		if r.Save != nil {
			if err := r.Save(r.result()); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy collects garbage where there is much. It is called between measurements, never during one.
func (r *run) tidy() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > r.heap+256<<20 {
		runtime.GC()
		runtime.ReadMemStats(&m)
		r.heap = m.HeapAlloc
	}
}

// micro are durations in µs, and milli in ms.
func micro(all []time.Duration) (out []float64) {
	for _, d := range all {
		out = append(out, float64(d.Nanoseconds())/1e3)
	}
	return out
}

func milli(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// pinAll keeps this program, and so its API servers, where clients are; or lets it go.
func (r *run) pinAll(pinned bool) error {
	if r.cpus.client < 0 {
		return nil
	}
	if pinned {
		return driver.Pin(r.cpus.client)
	}
	return driver.Pin(-1)
}
