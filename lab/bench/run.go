// Package bench measures Zonewise beside its peers: the same work, on the same machine, in one run.
// Each benchmark is in the file of its name. `make bench` runs them all.
package bench

import (
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

	effort
}

// effort is how much is measured in one round, and at which sizes.
type effort struct {
	sizes       []int // of connect and memory
	rateSizes   []int
	streamSizes []int
	changeSizes []int // of programming and removal
	churnSizes  []int
	cold        []load
	affinity    []int // endpoints
	connects    int
	length      time.Duration // of rates and streams
	flips       int
	removals    int
	churn       []int // changes a second
	churnLength time.Duration
	workers     []int // connections at a time
	streams     []int
}

// Full is the whole of it: hours.
func Full() Config {
	return Config{Rounds: 5, Limit: 10 * time.Minute, Seed: 1, effort: effort{
		sizes: []int{10, 100, 1_000, 10_000, 100_000}, rateSizes: []int{10, 1_000, 10_000}, streamSizes: []int{1_000},
		changeSizes: []int{1_000, 10_000, 100_000}, churnSizes: []int{10_000},
		cold:     []load{{Services: 1_000, Endpoints: 2}, {Services: 5_000, Endpoints: 50}, {Services: 10_000, Endpoints: 2}, {Services: 50_000, Endpoints: 2}, {Services: 100_000, Endpoints: 2}},
		affinity: []int{10, 100, 1_000}, connects: 2_000, length: 2 * time.Second, flips: 20, removals: 5,
		churn: []int{10, 100, 1_000}, churnLength: 10 * time.Second, workers: []int{1, 16, 64}, streams: []int{1, 4},
	}}
}

// Short is a little of everything, within five minutes: to see that it works, not for its figures.
func Short() Config {
	return Config{Rounds: 2, Limit: time.Minute, Seed: 1, Short: true, effort: effort{
		sizes: []int{10, 1_000}, rateSizes: []int{1_000}, streamSizes: []int{1_000},
		changeSizes: []int{1_000}, churnSizes: []int{1_000},
		cold:     []load{{Services: 10, Endpoints: 2}, {Services: 1_000, Endpoints: 2}},
		affinity: []int{10, 100}, connects: 200, length: 200 * time.Millisecond, flips: 2, removals: 1,
		churn: []int{10, 100, 1_000}, churnLength: time.Second, workers: []int{1, 16, 64}, streams: []int{1, 4},
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
	run     func(*run, *stage) error
}

// benchmarks in the order in which they are shown.
func benchmarks() []benchmark {
	return []benchmark{overhead(), connect(), rate(), throughput(), coldStart(), programming(), churn(), removals(), memory(), affinity()}
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
	// slow is the least number of endpoints that a peer could not do in time: no greater one is tried.
	slow  map[peer.Kind]slowness
	heap  uint64 // after the last collection
	least leastMemory
	// failed is what went wrong with one peer, while the others went on.
	failed []error
}

type slowness struct {
	endpoints int
	why       string
}

// Run measures until ctx ends, and returns what it found also where something went wrong on the way.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{Config: c, ctx: ctx, record: newRecord(), random: rand.New(rand.NewPCG(c.Seed, 1)), cpus: cpus{-1, -1}, slow: map[peer.Kind]slowness{}, least: leastMemory{}}
	if runtime.NumCPU() > 1 {
		r.cpus = cpus{0, 1}
	}
	for _, k := range c.Peers {
		if err := peer.Absent(k, c.Bin); err != nil {
			r.slow[k] = slowness{0, err.Error()}
		}
	}
	debug.SetGCPercent(-1) // see tidy
	err := r.all()
	err = errors.Join(append(r.failed, err)...)
	result := Result{Schema: Schema, Machine: machine(), Short: c.Short, Rounds: c.Rounds, Rows: r.record.rows()}
	sortRows(result.Rows, Names(), append([]peer.Kind{harness}, peer.Kinds()...))
	if err == nil {
		if m := missing(r.want(), result.Rows, c.Short); len(m) > 0 {
			err = fmt.Errorf("%d rows are missing: %q", len(m), m)
		}
	}
	return result, err
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
	var loads []load
	for _, b := range benchmarks() {
		if r.wants(b) {
			loads = append(loads, b.loads(r.effort)...)
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return a.Services*a.Endpoints - b.Services*b.Endpoints })
	for _, l := range slices.Compact(loads) {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.at(l); err != nil {
			return fmt.Errorf("%d Services of %d endpoints: %w", l.Services, l.Endpoints, err)
		}
	}
	return nil
}

// at does what wants a load: with every peer in a world of its own, or in worlds that it makes itself.
func (r *run) at(l load) error {
	snapshot, err := apiserver.Prepare(l.objects()...)
	if err != nil {
		return err
	}
	var shared []benchmark
	for _, b := range benchmarks() {
		if !r.wants(b) || !slices.Contains(b.loads(r.effort), l) {
			continue
		}
		if b.alone {
			fmt.Fprintf(r.Log, "%s: %d Services × %d\n", b.name, l.Services, l.Endpoints)
			if err := b.run(r, &stage{load: l, snapshot: snapshot, benchmark: b}); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		} else {
			shared = append(shared, b)
		}
	}
	if len(shared) == 0 {
		return nil
	}
	s, err := r.open(l, snapshot, shared)
	if err == nil {
		for _, b := range shared {
			fmt.Fprintf(r.Log, "%s: %d Services × %d\n", b.name, l.Services, l.Endpoints)
			s.benchmark = b
			if err = b.run(r, s); err != nil {
				err = fmt.Errorf("%s: %w", b.name, err)
				break
			}
		}
	}
	return errors.Join(err, s.close())
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
