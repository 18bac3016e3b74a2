package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
)

// Net is what is needed of the network of a namespace; package kernel/link has it.
type Net interface {
	Pair(here, there link.Device, other *netns.NS) error
	Ensure(link.Device) error
	Read(name string) (link.Device, error)
	Find(name string) (link.Device, error)
	Uplink() (link.Device, error)
	List() ([]link.Device, error)
	Unroute(device string, r link.Route) error
	Delete(name string) error
	Rules() ([]link.Rule, error)
	AddRule(link.Rule) error
	DeleteRule(link.Rule) error
	Loosen(device string) error
}

// Setup wires the pod, whose namespace is ns and network pod. What is there already is completed,
// so that a second call changes nothing. When it fails, a wire that it made is gone again.
func Setup(host, pod Net, ns *netns.NS, w Wiring) error {
	made, err := pair(host, pod, ns, w)
	if err != nil {
		return err
	}
	// The pod first: the host's route then never leads to a pod that is not ready for packets.
	err = pod.Ensure(w.Pod)
	if err == nil {
		err = ensureRules(host, w)
	}
	if err == nil {
		err = host.Ensure(w.Host)
	}
	if err != nil && made {
		err = errors.Join(err, host.Delete(w.Host.Name))
	}
	return err
}

// pair makes the wire, or finds the one that an earlier call made.
func pair(host, pod Net, ns *netns.NS, w Wiring) (made bool, err error) {
	err = host.Pair(w.Host, w.Pod, ns)
	if !errors.Is(err, link.ErrExists) {
		return err == nil, err
	}
	far, err := read(pod, w.Pod.Name)
	if err != nil {
		return false, err
	}
	if far.Name != "" && far.MAC != w.Pod.MAC {
		return false, fmt.Errorf("interface %s of the pod: %w, and is not ours", w.Pod.Name, link.ErrExists)
	}
	near, err := read(host, w.Host.Name)
	if err != nil {
		return false, err
	}
	if far.Name != "" && near.Name != "" {
		return false, nil
	}
	// One end without the other: it belongs to a namespace in which this pod is no more.
	if err := host.Delete(w.Host.Name); err != nil {
		return false, err
	}
	err = host.Pair(w.Host, w.Pod, ns)
	return err == nil, err
}

// read returns the device, or one without a name when there is none.
func read(n Net, name string) (link.Device, error) {
	d, err := n.Read(name)
	if errors.Is(err, link.ErrNotFound) {
		return link.Device{}, nil
	}
	return d, err
}

// ensureRules makes the pod's rules what they should be: those that its address had on another interface
// go.
func ensureRules(host Net, w Wiring) error {
	if len(w.Rules) == 0 {
		return nil
	}
	have, err := host.Rules()
	if err != nil {
		return err
	}
	for _, r := range w.Rules {
		if !slices.Contains(have, r) {
			if err := host.AddRule(r); err != nil {
				return err
			}
		}
	}
	for _, r := range have {
		ours := slices.ContainsFunc(w.Rules, func(o link.Rule) bool { return podOf(o) == podOf(r) })
		if ours && !slices.Contains(w.Rules, r) {
			if err := host.DeleteRule(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// podOf is the pod that the rule was made for; the zero address: it is no pod's.
func podOf(r link.Rule) netip.Addr {
	switch r.Priority {
	case toPod:
		return r.To.Addr()
	case fromPod:
		return r.From.Addr()
	}
	return netip.Addr{}
}

// Teardown takes the wire of an attachment away, with the host's route. It needs nothing of the
// pod, whose namespace may be gone; a wire that is not there is fine.
func Teardown(host Net, k vpc.Key) error { return host.Delete(HostName(k)) }

// PruneRules deletes the rules of pods whose address is not to be kept.
func PruneRules(host Net, keep func(netip.Addr) bool) error {
	have, err := host.Rules()
	if err != nil {
		return err
	}
	for _, r := range have {
		if pod := podOf(r); pod.IsValid() && !keep(pod) {
			if err := host.DeleteRule(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Check compares the wiring with what is there; an MTU of zero is not compared. The error names
// everything that is missing or different, and on which end.
func Check(host, pod Net, w Wiring) error {
	return errors.Join(check("host", host, w.Host), checkRules(host, w.Rules), check("pod", pod, w.Pod))
}

func checkRules(host Net, want []link.Rule) error {
	if len(want) == 0 {
		return nil
	}
	have, err := host.Rules()
	if err != nil {
		return err
	}
	if wrong := missing("rule", want, have); len(wrong) > 0 {
		return fmt.Errorf("host: %s", strings.Join(wrong, "; "))
	}
	return nil
}

func check(side string, n Net, want link.Device) error {
	have, err := n.Read(want.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", side, err)
	}
	var wrong []string
	if have.MAC != want.MAC {
		wrong = append(wrong, fmt.Sprintf("mac %s, not %s", have.MAC, want.MAC))
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		wrong = append(wrong, fmt.Sprintf("mtu %d, not %d", have.MTU, want.MTU))
	}
	if !have.Up {
		wrong = append(wrong, "down")
	}
	wrong = append(wrong, missing("address", want.Addresses, have.Addresses)...)
	wrong = append(wrong, missing("neighbour", want.Neighbours, have.Neighbours)...)
	wrong = append(wrong, missing("route", want.Routes, have.Routes)...)
	if len(wrong) > 0 {
		return fmt.Errorf("%s: device %s: %s", side, want.Name, strings.Join(wrong, "; "))
	}
	return nil
}

func missing[T comparable](what string, want, have []T) (wrong []string) {
	for _, w := range want {
		if !slices.Contains(have, w) {
			wrong = append(wrong, fmt.Sprintf("no %s %v", what, w))
		}
	}
	return wrong
}

// Wired returns the leases that the host's devices give evidence of, without their times. An
// address to which two wires lead is left out of all but the first.
func Wired(host Net) ([]vpc.Lease, error) {
	devices, err := host.List()
	if err != nil {
		return nil, err
	}
	var leases []vpc.Lease
	seen := map[netip.Addr]bool{}
	for _, d := range devices {
		if l, ok := lease(d); ok && !seen[l.Address] {
			seen[l.Address] = true
			leases = append(leases, l)
		}
	}
	return leases, nil
}

// UplinkMTU is the MTU of the device that the default route goes through, in bytes; DefaultMTU
// when there is no such route.
func UplinkMTU(host Net) (int, error) {
	d, err := host.Uplink()
	if errors.Is(err, link.ErrNotFound) {
		return DefaultMTU, nil
	}
	return d.MTU, err
}
