package metering

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/state"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// kernel counts, whichever agent reads.
type kernel struct {
	mu       sync.Mutex
	clock    time.Duration
	totals   map[meter.Key]meter.Totals
	gone     []meter.Counter
	counting bool // programs are attached
	reads    int
	capacity int
	broken   error
	counted  uint64 // bytes in all
}

func newKernel() *kernel {
	return &kernel{clock: time.Hour, totals: map[meter.Key]meter.Totals{}, capacity: 1000}
}

// send passes packets, each of one byte to make sums easy.
func (k *kernel) send(key meter.Key, bytes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.counting {
		return
	}
	k.clock += time.Microsecond
	t := k.totals[key]
	if t.Born == 0 {
		t.Born = k.clock
	}
	t.Last = k.clock
	t.RequestBytes += bytes
	t.RequestPackets += bytes
	k.totals[key] = t
	k.counted += bytes
}

func (k *kernel) pass(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clock += d
}

// handle is an agent's: it knows what it has told of as gone.
type handle struct {
	*kernel
	told int
	life *life
}

// life ends an agent after so many steps; from then on nothing it does has an effect.
type life struct{ left int }

var errKilled = errors.New("killed")

func (l *life) step() error {
	if l == nil {
		return nil
	}
	if l.left--; l.left < 0 {
		return errKilled
	}
	return nil
}

func (h *handle) Read() (meter.Reading, error) {
	if err := h.life.step(); err != nil {
		return meter.Reading{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		return meter.Reading{}, h.broken
	}
	h.reads++
	h.gone = h.gone[h.told:]
	h.told = len(h.gone)
	h.clock += time.Microsecond
	return meter.Reading{Boot: "boot", Epoch: 1, At: h.clock, Wall: noon.Add(h.clock), Totals: maps.Clone(h.totals), Gone: slices.Clone(h.gone)}, nil
}

func (h *handle) Retire(keys []meter.Key) error {
	for _, key := range keys {
		if err := h.life.step(); err != nil {
			return err
		}
		h.mu.Lock()
		if t, ok := h.totals[key]; ok {
			h.gone = append(h.gone, meter.Counter{Key: key, Totals: t})
			delete(h.totals, key)
		}
		h.mu.Unlock()
	}
	return nil
}

func (h *handle) Attach() error {
	if err := h.life.step(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counting = true
	return nil
}

func (h *handle) Now() (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock += time.Microsecond
	return h.clock, nil
}

func (h *handle) Capacity() int { return h.capacity }
func (h *handle) Close() error  { return nil }

// disk is a journal, and what was put in it: it outlives agents.
type disk struct {
	mark  []byte
	flows []meter.Observed
}

// book is an agent's: what it could not write it has in mind until it dies.
type book struct {
	*disk
	full bool
	life *life
	mark []byte
	more []meter.Observed
	puts int
}

func (b *book) Put(_ time.Time, flows []meter.Observed, mark []byte) error {
	b.puts++
	b.more, b.mark = append(b.more, flows...), mark
	if b.full {
		return errors.New("disk full")
	}
	if err := b.life.step(); err != nil {
		return err
	}
	b.disk.flows, b.disk.mark, b.more = append(b.disk.flows, b.more...), b.mark, nil
	return nil
}

func (b *book) Mark() []byte {
	if b.mark == nil {
		b.mark = b.disk.mark
	}
	return b.mark
}

// world is a node whose agent meters, with the tables in front of it and the kernel behind.
type world struct {
	*testing.T
	kernel   *kernel
	disk     *disk
	services *state.Tables
	meter    *Meter
	book     *book
	cgroups  map[string][]uint64
	local    []netip.Addr
	dir      string // outlives agents
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, kernel: newKernel(), disk: &disk{}, services: state.New(), cgroups: map[string][]uint64{}, dir: t.TempDir()}
	w.start(nil)
	return w
}

// start is a new agent: it knows what is on disk and in the kernel, and lists everything anew.
func (w *world) start(l *life) {
	var before *state.Snapshot
	if w.meter != nil {
		before = w.meter.names.residents.Snapshot()
	}
	o := Options{Namespace: "kube-system", Cluster: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Blocks:    map[string][]netip.Prefix{"warehouse": {netip.MustParsePrefix("172.16.0.0/12")}},
		Addresses: func() ([]netip.Addr, error) { return w.local, nil }, Cgroups: func(c string) []uint64 { return w.cgroups[c] }}
	w.meter = New(o, Site{Node: "a1", Tables: w.services, Served: w.services.Snapshot, Log: slog.New(slog.DiscardHandler)})
	w.book = &book{disk: w.disk, life: l}
	w.meter.count = &counting{counter: &handle{kernel: w.kernel, life: l}, reports: w.book, names: w.meter.names, memory: &memory{path: filepath.Join(w.dir, Owners)}, metrics: w.meter.metrics, log: w.meter.site.Log}
	w.meter.names.residents.Update(noon, func(tx *state.Tx) {
		if before != nil {
			for n := range before.Nodes() {
				tx.PutNode(n)
			}
			for p := range before.Pods() {
				tx.PutPod(p)
			}
			for s := range before.AllSlices() {
				tx.PutSlice(s)
			}
		} else {
			tx.PutNode(model.Node{Name: "a1", Zone: "a", Addresses: addrs("192.168.1.1")})
			tx.PutNode(model.Node{Name: "b1", Zone: "b", Addresses: addrs("192.168.2.1")})
		}
		for _, s := range reflect.ResidentSources {
			tx.Initialised(s)
		}
	})
	w.meter.names.note(true, nil)
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// ended is a context that has: a pass does not rest then.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// look is what a wake-up does.
func (w *world) look() {
	w.Helper()
	if err := w.meter.pass(ended); err != nil {
		w.Fatal(err)
	}
}

// read is what the clock does.
func (w *world) read() {
	w.Helper()
	w.meter.due.Store(true)
	w.look()
}

// news changes what the API server says.
func (w *world) news(f func(*state.Tx)) {
	w.meter.names.residents.Update(noon, f)
}

func (w *world) pod(name, node, workload string, addresses ...string) model.Pod {
	return model.Pod{Name: model.Name{Namespace: "shop", Name: name}, Node: node, Workload: workload, Addresses: addrs(addresses...), Created: noon.Add(w.kernel.clock)}
}

func (w *world) puts(p model.Pod) { w.news(func(tx *state.Tx) { tx.PutPod(p) }) }

func (w *world) deletes(name string) {
	w.news(func(tx *state.Tx) { tx.DeletePod(model.Name{Namespace: "shop", Name: name}) })
}

func key(client, server string) meter.Key {
	return meter.Key{Client: netip.MustParseAddr(client), Server: netip.MustParseAddrPort(server), Protocol: model.TCP, Side: meter.ClientEnd}
}

func dialled(client, front, server string) meter.Key {
	k := key(client, server)
	k.Dialled = netip.MustParseAddrPort(front)
	return k
}

// bytes sums up what was handed on, by a name.
func (w *world) bytes(of func(model.FlowKey) string) map[string]uint64 {
	out := map[string]uint64{}
	for _, f := range w.disk.flows {
		out[of(f.FlowKey)] += f.Bytes()
	}
	return out
}

func clientWorkload(k model.FlowKey) string { return k.Client.Workload }
