package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// load opens the maps that are there, makes the others, and hands the programs to the kernel.
// What is made is pinned only after the kernel has taken the programs.
func (m *machine) load() error {
	spec, err := loadObject()
	if err != nil {
		return fmt.Errorf("socket path: %w", err)
	}
	if n := m.options.Frontends; n > 0 {
		spec.Maps[objectMapFrontends].MaxEntries = uint32(n)
	}
	if n := m.options.Slots; n > 0 {
		spec.Maps[objectMapSlots].MaxEntries = uint32(n)
	}
	adopted := map[string]*ebpf.Map{}
	defer func() {
		for _, a := range adopted {
			a.Close() // the collection has its own
		}
	}()
	for name, s := range spec.Maps {
		there, err := adopt(m.mapPin(name), s)
		if err != nil {
			return err
		}
		if there != nil {
			adopted[name] = there
		}
	}
	if err := m.verify(spec, adopted); err != nil {
		return err
	}
	if err := m.describe(); err != nil {
		return err
	}
	if err := m.pinMaps(); err != nil {
		return err
	}
	return m.openLinks()
}

// adopt opens a pinned map if it is there and of the shape that we know. It may have another size.
func adopt(pin string, s *ebpf.MapSpec) (*ebpf.Map, error) {
	there, err := bpf.Pinned(pin, s)
	if err != nil { // it is not ours, or not what its place says
		if err := os.Remove(pin); err != nil {
			return nil, fmt.Errorf("pin: %w", err)
		}
		return nil, nil
	}
	if there != nil {
		s.MaxEntries = there.MaxEntries()
	}
	return there, nil
}

// verify hands the programs to the kernel. Three of them it may lack the means for: without sum, elements
// are copied out to be looked at; without end_udp, connected UDP sockets are not led; without settle,
// unconnected ones move once when the programs come.
func (m *machine) verify(spec *ebpf.CollectionSpec, adopted map[string]*ebpf.Map) error {
	optional := []string{objectProgSum, objectProgEndUdp, objectProgSettle}
	for without := 0; ; without++ {
		objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: adopted})
		if err == nil {
			m.objects = objects
			break
		}
		if without == len(optional) {
			return refused(err)
		}
		delete(spec.Programs, optional[without])
	}
	m.ender, m.settler = iterator(m.objects.Programs[objectProgEndUdp]), iterator(m.objects.Programs[objectProgSettle])
	return nil
}

// refused says in a sentence why the kernel does not take the programs.
func refused(err error) error {
	return &Unsupported{bpf.Refusal(err, "CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN", "the eBPF programs")}
}

// program is what the kernel says of one of ours.
type program struct {
	id  ebpf.ProgramID
	tag string // the same for the same instructions
}

// describe notes what the programs and maps are called by the kernel.
func (m *machine) describe() error {
	for _, h := range hooks() {
		info, err := m.objects.Programs[h.program].Info()
		if err != nil {
			return fmt.Errorf("program %s: %w", h.program, err)
		}
		id, _ := info.ID()
		m.programs[h.program] = program{id, info.Tag}
	}
	for name, mm := range m.objects.Maps {
		info, err := mm.Info()
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		id, _ := info.ID()
		m.maps[id] = true
	}
	return nil
}

func (m *machine) mapPin(name string) string {
	if slices.Contains(socketMaps, name) {
		return filepath.Join(m.options.Pins, socketLayout, name)
	}
	return filepath.Join(m.options.Pins, m.layout, name)
}

func (m *machine) linkPin(program string) string {
	return filepath.Join(m.options.Pins, linksDir, program)
}

// pinMaps pins what is not pinned, or no longer.
func (m *machine) pinMaps() error {
	for name, mm := range m.objects.Maps {
		if err := bpf.Pin(mm, m.mapPin(name)); err != nil {
			return err
		}
	}
	return nil
}

// openLinks opens the links that are there.
func (m *machine) openLinks() error {
	for _, h := range hooks() {
		pin := m.linkPin(h.program)
		l, err := link.LoadPinnedLink(pin, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			if err := os.Remove(pin); err != nil { // something else is in its place
				return fmt.Errorf("pin: %w", err)
			}
			continue
		}
		m.links[h.program] = l
	}
	return nil
}

// view returns a map of the collection by its types.
func view[K comparable, V any](m *machine, name string) bpf.Map[K, V] {
	return bpf.NewMap[K, V](m.objects.Maps[name])
}

// few is up to how many elements it is cheaper to copy them out than to have the kernel walk its
// maps, most of which are empty then.
const few = 75_000

// Sum adds up the digests of all that the tables hold, which is expected to be so much.
func (m *machine) Sum(expected usage) (d digest, u usage, err error) {
	p := m.objects.Programs[objectProgSum]
	if p == nil || expected.frontends+expected.slots+expected.kept < few {
		return sum(m.Tables())
	}
	return m.sumInKernel(p)
}

func (m *machine) sumInKernel(p *ebpf.Program) (d digest, u usage, err error) {
	var s [8]uint64
	if _, err := p.Run(&ebpf.RunOptions{Context: s, ContextOut: &s}); err != nil {
		return d, u, fmt.Errorf("program %s: %w", objectProgSum, err)
	}
	return digest{s[0], s[1], s[2], s[3]}, usage{int(s[4]), int(s[5]), int(s[6]), int(s[7])}, nil
}

// Tables are the maps of our layout.
func (m *machine) Tables() tables {
	return tables{
		frontends:   view[address, frontend](m, objectMapFrontends),
		slots:       view[slotKey, slot](m, objectMapSlots),
		weights:     view[uint32, weights](m, objectMapWeights),
		kept:        view[pair, uint32](m, objectMapKept),
		connections: view[uint32, uint64](m, objectMapConnections),
		optouts:     view[uint64, uint32](m, objectMapOptouts),
		remembered:  view[memoryKey, memory](m, objectMapRemembered),
		uses:        view[memoryKey, uint64](m, objectMapUses),
		pods:        view[uint64, pod](m, objectMapPods),
	}
}
