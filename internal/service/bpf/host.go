package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// Options of an Applier.
type Options struct {
	// Cgroup is the directory of the cgroup v2 whose processes are led, with all below it.
	Cgroup string
	// Pins is a directory on a bpffs, made if missing, in which programs and maps outlive the agent.
	Pins string
	// Namespaces is the directory of named network namespaces in which pods are; empty: there are none.
	Namespaces string
	// Frontends and Slots are how many of them fit, if no maps are there yet; 0: 262,144 and 1,048,576.
	Frontends, Slots int
}

// Unsupported says what the machine lacks for the socket path.
type Unsupported struct{ Missing string }

func (u *Unsupported) Error() string { return u.Missing }

// The layouts. Another meaning or size of what the maps hold is another layout: agents of both
// can stand beside each other while one hands over to the other. What sockets hold outlives that,
// and has a version of its own.
const (
	socketLayout = "sockets-v1"
	linksDir     = "links"
)

// currentLayout is a variable so that the linker can make an agent of another version, to try an
// upgrade.
var currentLayout = "v4"

// socketMaps are those of the socket layout.
var socketMaps = []string{objectMapPlaces, objectMapPeers, objectMapConversations, objectMapElders, objectMapDialling, objectMapLasts}

// hook is a place in the kernel that runs a program of ours.
type hook struct {
	program string
	attach  ebpf.AttachType
}

// hooks are in the order in which they are filled: what forgets closed sockets and what translates
// back come before what leads.
func hooks() []hook {
	return []hook{
		{objectProgReleased, ebpf.AttachCgroupInetSockRelease},
		{objectProgGetpeername4, ebpf.AttachCgroupInet4GetPeername},
		{objectProgGetpeername6, ebpf.AttachCgroupInet6GetPeername},
		{objectProgRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
		{objectProgRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
		{objectProgSendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
		{objectProgSendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
		{objectProgConnect4, ebpf.AttachCGroupInet4Connect},
		{objectProgConnect6, ebpf.AttachCGroupInet6Connect},
	}
}

// machine is the host as it is.
type machine struct {
	options  Options
	layout   string
	cgroup   uint64
	objects  *ebpf.Collection
	programs map[string]program
	maps     map[ebpf.MapID]bool
	links    map[string]link.Link // by program
	ender    *link.Iter           // nil: the kernel cannot end UDP sockets
	settler  *link.Iter           // nil: the kernel cannot mark them
	lock     *os.File             // nil: not held
	known    known                // of pods
	own      *netns.NS            // the node's network namespace: where New was called
}

// New returns an applier that has not changed anything yet, save that its maps are there. The
// error is an *Unsupported where the machine cannot have a socket path.
func New(o Options) (*Applier, error) {
	m, err := open(o, currentLayout)
	if err != nil {
		return nil, err
	}
	return newApplier(m), nil
}

func open(o Options, layout string) (*machine, error) {
	if !bpf.IsCgroup(o.Cgroup) {
		return nil, &Unsupported{fmt.Sprintf("%s is no cgroup v2", o.Cgroup)}
	}
	if !bpf.IsPinnable(o.Pins) {
		return nil, &Unsupported{fmt.Sprintf("%s is not on a bpffs", o.Pins)}
	}
	cgroup, err := bpf.CgroupID(o.Cgroup)
	if err != nil {
		return nil, err
	}
	m := &machine{options: o, layout: layout, cgroup: cgroup,
		links: map[string]link.Link{}, programs: map[string]program{}, maps: map[ebpf.MapID]bool{}}
	if m.own, err = netns.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if err := m.load(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if err := m.set(func(s *settings) { s.ConnectedUDP = number(m.ender != nil) }); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Own makes sure that no other agent writes to the maps: two would give one id to two frontends.
func (m *machine) Own() error {
	if m.lock != nil {
		return nil
	}
	if err := os.MkdirAll(m.options.Pins, 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	lock, err := bpf.Lock(m.options.Pins)
	if err != nil {
		return err
	}
	m.lock = lock
	return nil
}

// disown lets other agents write.
func (m *machine) disown() error {
	if m.lock == nil {
		return nil
	}
	lock := m.lock
	m.lock = nil
	return lock.Close()
}

// set changes the settings, if that changes them.
func (m *machine) set(change func(*settings)) error {
	var s settings
	mm := m.objects.Maps[objectMapSettings]
	if err := mm.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	before := s
	change(&s)
	if s == before {
		return nil
	}
	if err := mm.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// Standing tells what leads calls to programs now.
func (m *machine) Standing() (standing, error) {
	out := ready
	for name := range m.objects.Maps {
		if !bpf.Exists(m.mapPin(name)) {
			out = missing
		}
	}
	settling, err := m.settling()
	if err != nil {
		return 0, err
	}
	if settling {
		out = missing
	}
	for _, h := range hooks() {
		s, err := m.standingOf(h)
		if err != nil {
			return 0, err
		}
		out = max(out, s)
	}
	return out, nil
}

func (m *machine) standingOf(h hook) (standing, error) {
	l := m.links[h.program]
	if l == nil || !bpf.Exists(m.linkPin(h.program)) {
		return missing, nil
	}
	info, here, err := m.where(l)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", h.program, err)
	}
	if !here {
		return missing, nil
	}
	ours := m.programs[h.program]
	if info.Program == ours.id {
		return ready, nil
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return missing, nil // it has just gone
	}
	defer p.Close()
	there, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", h.program, err)
	}
	ids, _ := there.MapIDs()
	if slices.ContainsFunc(ids, func(id ebpf.MapID) bool { return !m.maps[id] }) {
		return strangers, nil
	}
	if there.Tag != ours.tag {
		return missing, nil
	}
	return ready, nil
}

// where tells what a link is, and whether it is one of our cgroup.
func (m *machine) where(l link.Link) (info *link.Info, here bool, err error) {
	if info, err = l.Info(); err != nil {
		return nil, false, err
	}
	c := info.Cgroup()
	return info, c != nil && c.CgroupId == m.cgroup, nil
}

// Attach makes every hook run our programs: where a link is, in one stroke.
func (m *machine) Attach() error {
	if err := m.pinMaps(); err != nil {
		return err
	}
	if err := m.expectElders(); err != nil {
		return err
	}
	for _, h := range hooks() {
		s, err := m.standingOf(h)
		if err != nil {
			return err
		}
		if s == ready {
			continue
		}
		if err := m.attach(h); err != nil {
			return fmt.Errorf("link %s: %w", h.program, err)
		}
	}
	return m.settle()
}

func (m *machine) attach(h hook) error {
	pin := m.linkPin(h.program)
	p := m.objects.Programs[h.program]
	if l := m.links[h.program]; l != nil {
		info, here, err := m.where(l)
		if err != nil {
			return err
		}
		if here {
			if err := l.Update(p); err != nil {
				return err
			}
			return pinLink(info.ID, pin)
		}
		if err := os.RemoveAll(pin); err != nil {
			return err
		}
		delete(m.links, h.program)
		if err := l.Close(); err != nil {
			return err
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: m.options.Cgroup, Attach: h.attach, Program: p})
	if err != nil {
		return err
	}
	m.links[h.program] = l
	info, err := l.Info()
	if err != nil {
		return err
	}
	return pinLink(info.ID, pin)
}

// pinLink pins a link that is not pinned, or no longer.
func pinLink(id link.ID, pin string) error {
	if bpf.Exists(pin) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(pin), 0o700); err != nil {
		return err
	}
	again, err := link.NewFromID(id) // one that knows of no pin
	if err != nil {
		return err
	}
	return errors.Join(again.Pin(pin), again.Close())
}

// Tidy removes the maps of other layouts.
func (m *machine) Tidy() error {
	dirs, err := os.ReadDir(m.options.Pins)
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, d := range dirs {
		if n := d.Name(); n != m.layout && n != socketLayout && isLayout(n) {
			if err := os.RemoveAll(filepath.Join(m.options.Pins, n)); err != nil {
				return fmt.Errorf("pins: %w", err)
			}
		}
	}
	return nil
}

// isLayout tells the names of directories that hold maps.
func isLayout(name string) bool {
	return strings.HasPrefix(strings.TrimPrefix(name, "sockets-"), "v")
}

// grace is for the answers to what was sent by the socket path: most are on their way for less.
const grace = time.Second

// Remove takes everything away. First nobody is led any more; the programs that give answers the
// Service's address stay until those on their way have come. UDP sockets that we connected are
// ended, as nobody would end them later, when their endpoint goes.
func (m *machine) Remove() error {
	leading := false
	for _, h := range slices.Backward(hooks()) {
		l := m.links[h.program]
		if leading && h.program == objectProgRecvmsg6 {
			<-time.After(grace)
		}
		leading = leading || l != nil
		delete(m.links, h.program)
		if err := os.RemoveAll(m.linkPin(h.program)); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("link %s: %w", h.program, err)
		}
	}
	t := m.Tables()
	var kept []pair
	if err := t.kept.Each(func(keys []pair, _ []uint32) { kept = append(kept, keys...) }); err != nil {
		return err
	}
	if err := t.kept.Delete(kept); err != nil {
		return err
	}
	if err := m.EndUDP(); err != nil {
		return err
	}
	if err := m.disown(); err != nil {
		return err
	}
	return removePins(m.options.Pins)
}

// removePins removes what is ours in the directory, and the directory if nothing else is there.
func removePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	others := false
	for _, e := range entries {
		if e.Name() != linksDir && !isLayout(e.Name()) {
			others = true
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
	}
	if others {
		return nil
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return nil
}

// Remove takes away what any agent left, on a machine that is to have no socket path.
func Remove(o Options) error {
	if !bpf.IsPinnable(o.Pins) || !bpf.Exists(o.Pins) {
		return nil
	}
	a, err := New(o)
	var u *Unsupported
	if errors.As(err, &u) {
		return removePins(o.Pins)
	}
	if err != nil {
		return err
	}
	return errors.Join(a.Remove(), a.Close())
}

// Close lets go of the kernel and leaves everything in force.
func (m *machine) Close() error {
	errs := []error{m.disown(), m.own.Close()}
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	for _, it := range []*link.Iter{m.ender, m.settler} {
		if it != nil {
			errs = append(errs, it.Close())
		}
	}
	if m.objects != nil {
		m.objects.Close()
	}
	return errors.Join(errs...)
}
