//go:build kernel

package unbroken

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// tables are those that an agent has in the node's kernel.
var tables = []nft.Table{{Family: nft.IPv4, Name: "zonewise"}, {Family: nft.IPv6, Name: "zonewise"}}

// interims serve while a table of another layout is replaced.
var interims = []nft.Table{{Family: nft.IPv4, Name: "zonewise-interim"}, {Family: nft.IPv6, Name: "zonewise-interim"}}

// elements are those of a set in the node's kernel.
func (s *stage) elements(door *nft.Conn, t nft.Table, set string) ([]nft.Element, bool, error) {
	contents, there, err := door.Read(t)
	if err != nil || !there || !contents.Sets[set] {
		return nil, false, err
	}
	list, err := door.Elements(t, nft.Set{Name: set})
	return list, true, err
}

// leadsTo tells whether anything in the kernel leads to the server, in either path. It is an error
// if that is not to be known now, since tables are just being replaced.
func (s *stage) leadsTo(door *nft.Conn, to server) (leads bool, err error) {
	for i, t := range tables {
		address := string(netip.MustParseAddr(to.addrs[i]).AsSlice())
		list, there, err := s.elements(door, t, "backends")
		if err == nil && !there {
			err = errors.New("no table " + t.String())
		}
		if err != nil {
			return false, err
		}
		interim, _, err := s.elements(door, interims[i], "backends")
		if err != nil {
			return false, err
		}
		for _, e := range append(list, interim...) {
			leads = leads || strings.HasPrefix(e.Data, address)
		}
	}
	for _, pin := range s.pinned("slots") {
		all, err := entries(pin)
		if err != nil {
			return false, err
		}
		for _, value := range all {
			for _, a := range to.addrs {
				ip := netip.MustParseAddr(a).As16()
				leads = leads || strings.HasPrefix(value, string(ip[:]))
			}
		}
	}
	for _, pin := range s.pinned("frontends") {
		all, err := entries(pin)
		if err != nil {
			return false, err
		}
		for _, value := range all {
			leads = leads || leadsBeside(value, to)
		}
	}
	return leads, nil
}

// leadsBeside tells whether one of the IPv4 endpoints that lie in a frontend's value is the server
// (struct frontend in internal/service/bpf/c/socket.c).
func leadsBeside(frontend string, to server) bool {
	const flags, beside, first, second = 8, 2, 16, 28
	if frontend[flags]&beside == 0 {
		return false
	}
	for _, a := range to.addrs {
		ip := netip.MustParseAddr(a)
		if !ip.Is4() {
			continue
		}
		for _, at := range []int{first, second} {
			if frontend[at:at+4] == string(ip.AsSlice()) {
				return true
			}
		}
	}
	return false
}

// layouts are the names that tell how what is in the kernel is laid out.
func (s *stage) layouts() []string {
	s.Helper()
	door := nft.Dial(s.world.Node.FD())
	defer door.Close()
	var out []string
	for _, t := range tables {
		var contents nft.Contents
		until(s.T, "a table that stands still", soon, func() (err error) {
			contents, _, err = door.Read(t)
			return err
		})
		for name := range contents.Chains {
			if strings.HasPrefix(name, "layout-") {
				out = append(out, t.String()+" "+name)
			}
		}
	}
	for _, pin := range s.pinned("slots") {
		out = append(out, "socket "+filepath.Base(filepath.Dir(pin)))
	}
	slices.Sort(out)
	return out
}

// pins is where the socket path keeps what outlives the agent.
func (s *stage) pins() string { return filepath.Join(s.world.BPF, "zonewise") }

// pinned are the maps of a name, in every layout.
func (s *stage) pinned(name string) []string {
	all, _ := filepath.Glob(filepath.Join(s.pins(), "v*", name))
	return all
}

// entries are what a pinned map holds.
func entries(pin string) (map[string]string, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	out := map[string]string{}
	var key, value []byte
	each := m.Iterate()
	for each.Next(&key, &value) {
		out[string(key)] = string(value)
	}
	if err := each.Err(); !errors.Is(err, ebpf.ErrIterationAborted) { // it changed too often meanwhile
		return out, err
	}
	return out, nil
}
