package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// known is what was last seen of the pods' namespaces.
type known struct {
	names []string
	whole bool // each had an address
	at    time.Time
}

// podsAnew is after how long the namespaces are looked at again if none has come or gone: some 0.1 ms each.
const podsAnew = 30 * time.Second

// KnowPods tells the programs by which addresses the pods' sockets are seen. One that has several of a
// family is not known by it: nobody knows which of them it takes.
func (m *machine) KnowPods() error {
	names, err := m.namespaces()
	if err != nil {
		return err
	}
	now := time.Now()
	if m.known.whole && slices.Equal(names, m.known.names) && now.Sub(m.known.at) < podsAnew {
		return nil
	}
	m.known = known{}
	node, err := m.nodeCookie()
	if err != nil {
		return err
	}
	whole, pods := true, map[uint64]pod{}
	if err := m.inPods(func() error {
		cookie, err := bpf.NamespaceCookie()
		if err != nil || cookie == node {
			return err
		}
		p, err := podHere()
		pods[cookie] = p.sealed(cookie)
		whole = whole && p != pod{}
		return err
	}); err != nil {
		return err
	}
	if err := replace(m.Tables().pods, pods); err != nil {
		return err
	}
	m.known = known{names, whole, now}
	return nil
}

// namespaces are the names of those of pods.
func (m *machine) namespaces() ([]string, error) {
	if m.options.Namespaces == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(m.options.Namespaces)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// podHere returns the addresses that the thread's namespace has.
func podHere() (pod, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return pod{}, fmt.Errorf("addresses: %w", err)
	}
	var four, six []netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil || !p.Addr().IsGlobalUnicast():
		case p.Addr().Is4():
			four = append(four, p.Addr())
		default:
			six = append(six, p.Addr())
		}
	}
	var out pod
	if len(four) == 1 {
		out.IP4 = four[0].As4()
	}
	if len(six) == 1 {
		out.IP6 = six[0].As16()
	}
	return out, nil
}

// replace makes want the whole of what the table holds.
func replace[K comparable, V comparable](t table[K, V], want map[K]V) error {
	var gone []K
	have := map[K]V{}
	if err := t.Each(func(keys []K, values []V) {
		for i, k := range keys {
			have[k] = values[i]
			if _, ok := want[k]; !ok {
				gone = append(gone, k)
			}
		}
	}); err != nil {
		return err
	}
	var add puts[K, V]
	for k, v := range want {
		if is, ok := have[k]; !ok || is != v {
			add.add(k, v)
		}
	}
	if err := t.Put(add.keys, add.values); err != nil {
		return err
	}
	return t.Delete(gone)
}
