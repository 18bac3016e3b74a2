package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// socketMaps are the socket path's: we read them.
var socketMaps = []string{objectMapPlaces, objectMapDialling, objectMapLasts}

// hook is a place in netfilter.
type hook struct {
	program string // there, for good
	runs    string // by that
	index   uint32 // of the program that it runs
	at      link.NetfilterInetHook
}

func hooks() []hook {
	return []hook{
		{objectProgAtLeaving, objectProgLeaving, 0, link.NetfilterInetPostRouting},
		{objectProgAtArriving, objectProgArriving, 1, link.NetfilterInetLocalIn},
	}
}

// priority is after everything save the last step of connection tracking (INT_MAX, and one less
// for what IPv6 delivers): translations are done, and a connection's first packet can still be told.
const priority = 1<<31 - 3

func families() map[string]link.NetfilterProtocolFamily {
	return map[string]link.NetfilterProtocolFamily{"4": link.NetfilterProtoIPv4, "6": link.NetfilterProtoIPv6}
}

// load opens the maps that are there, makes the others, hands the programs to the kernel, and pins.
func (c *Counter) load() error {
	spec, err := loadObject()
	if err != nil {
		return err
	}
	adopted := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range adopted {
			m.Close() // the collection has its own
		}
	}()
	for name, s := range spec.Maps {
		if isData(name) {
			continue
		}
		m, err := adopt(c.mapPin(name), s)
		if err != nil {
			return err
		}
		if m != nil {
			adopted[name] = m
		}
	}
	c.fresh = adopted[objectMapDialled] == nil
	c.noting = !slices.ContainsFunc(socketMaps, func(name string) bool { return adopted[name] == nil })
	for _, name := range socketMaps {
		if !c.noting { // nobody looks there
			spec.Maps[name].MaxEntries = 1
			if m := adopted[name]; m != nil {
				m.Close()
				delete(adopted, name)
			}
		}
	}
	settings, err := c.settings(spec)
	if err != nil {
		return err
	}
	if err := spec.Variables[objectVarSettings].Set(settings); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if c.objects, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: adopted}); err != nil {
		return refused(err)
	}
	return c.pinMaps()
}

// isData tells what the compiler made: settings, which each set of programs has for itself.
func isData(name string) bool { return strings.HasPrefix(name, ".") }

// adopt opens a pinned map if it is there. One of another shape or size is an error.
func adopt(pin string, s *ebpf.MapSpec) (*ebpf.Map, error) {
	if pin == "" {
		return nil, nil
	}
	m, err := bpf.Pinned(pin, s)
	if m != nil && m.MaxEntries() != s.MaxEntries {
		return nil, errors.Join(fmt.Errorf("map %s: %s is another: %v", s.Name, pin, m), m.Close())
	}
	return m, err
}

// refused says in a sentence why the kernel does not take the programs.
func refused(err error) error {
	return &Unsupported{bpf.Refusal(err, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or CAP_SYS_ADMIN", "the eBPF programs (they need Linux 6.4 or newer)")}
}

func (c *Counter) mapPin(name string) string {
	if name == objectMapPrograms {
		return filepath.Join(c.options.Pins, name)
	}
	if !slices.Contains(socketMaps, name) {
		return filepath.Join(c.options.Pins, c.layout, name)
	}
	if c.options.Sockets == "" {
		return ""
	}
	return filepath.Join(c.options.Sockets, name)
}

func (c *Counter) linkPin(name string) string {
	return filepath.Join(c.options.Pins, linksDir, name)
}

// pinMaps pins what is not pinned.
func (c *Counter) pinMaps() error {
	for name, m := range c.objects.Maps {
		if isData(name) || slices.Contains(socketMaps, name) {
			continue
		}
		if err := bpf.Pin(m, c.mapPin(name)); err != nil {
			return err
		}
	}
	return nil
}

// openLinks opens the links that are there.
func (c *Counter) openLinks() error {
	entries, err := os.ReadDir(filepath.Join(c.options.Pins, linksDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("links: %w", err)
	}
	for _, e := range entries {
		l, err := link.LoadPinnedLink(c.linkPin(e.Name()), nil)
		if err != nil {
			return fmt.Errorf("link %s: %w", e.Name(), err)
		}
		c.links[e.Name()] = l
	}
	return nil
}

// attach puts our programs in place.
func (c *Counter) attach() error {
	if c.noting && c.fresh {
		if err := c.meetElders(); err != nil {
			return fmt.Errorf("sockets that were led before: %w", err)
		}
	}
	for _, h := range hooks() {
		if err := c.objects.Maps[objectMapPrograms].Put(h.index, uint32(c.objects.Programs[h.runs].FD())); err != nil {
			return fmt.Errorf("program %s: %w", h.runs, err)
		}
		for family, number := range families() {
			name := h.program + family
			if c.links[name] != nil {
				continue
			}
			l, err := link.AttachNetfilter(link.NetfilterOptions{
				Program: c.objects.Programs[h.program], ProtocolFamily: number, Hook: h.at, Priority: priority,
			})
			if err != nil {
				return fmt.Errorf("link %s: %w", name, err)
			}
			if err := c.keep(name, l); err != nil {
				return fmt.Errorf("link %s: %w", name, err)
			}
		}
	}
	c.fresh = false
	return c.takeOver()
}

// keep pins a link, and remembers it.
func (c *Counter) keep(name string, l link.Link) error {
	pin := c.linkPin(name)
	if err := os.MkdirAll(filepath.Dir(pin), 0o700); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := l.Pin(pin); err != nil {
		return errors.Join(err, l.Close())
	}
	c.links[name] = l
	return nil
}
