//go:build kernel

package unleaked

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// sound tells in what the region's records, pool.json, leases.json, the kernel and the runtime do not say the same. It
// is asked when no plugin is under way.
func (r *runtime) sound() error {
	dir, err := files.Open(r.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	leases, err := dir.ReadLeases(func() (vpc.Leases, error) { return vpc.Leases{}, errors.New("leases: none") })
	if err != nil {
		return err
	}
	pool, err := dir.ReadPool()
	if err != nil {
		return err
	}
	return errors.Join(r.soundCloud(pool), r.soundLeases(pool, leases), r.soundKernel(pool, leases))
}

// soundCloud compares what the cloud has given with what the node believes, and finds interfaces that are nobody's.
func (r *runtime) soundCloud(pool vpc.Supply) error {
	var wrong []error
	var at, here []string
	records := r.cloud.Records()
	for _, id := range slices.Sorted(maps.Keys(records.Interfaces)) {
		n := records.Interfaces[id]
		switch a := n.Attachment; {
		case a == nil || a.Instance != r.instance:
			wrong = append(wrong, fmt.Errorf("cloud: %s of %q is attached to nothing", id, n.Description))
			continue
		case a.State(r.cloud.Now()) != "attached":
			wrong = append(wrong, fmt.Errorf("cloud: %s is %s", id, a.State(r.cloud.Now())))
		case !a.DeleteOnTermination:
			wrong = append(wrong, fmt.Errorf("cloud: %s would outlive its instance", id))
		case a.Device > 0 && (n.Tags["zonewise.io/owner"] != "zonewise-cni" || n.Tags["node.k8s.amazonaws.com/instance_id"] != r.instance):
			wrong = append(wrong, fmt.Errorf("cloud: %s has tags %v", id, n.Tags))
		}
		at = append(at, line(id, n.Attachment.Device, n.Addresses[0], n.Addresses[1:]))
	}
	for _, i := range pool.Interfaces {
		if i.Device == "" || i.Draining || i.Unmanaged {
			wrong = append(wrong, fmt.Errorf("pool: %s: device %q, draining %t, unmanaged %t", i.ID, i.Device, i.Draining, i.Unmanaged))
		}
		here = append(here, line(i.ID, i.Index, i.Address, i.Addresses))
	}
	slices.Sort(here)
	slices.Sort(at)
	return errors.Join(append(wrong, same("pool", here, "cloud", at))...)
}

func line(id string, index int, own netip.Addr, addresses []netip.Addr) string {
	addresses = slices.SortedFunc(slices.Values(addresses), netip.Addr.Compare)
	return fmt.Sprintf("%s eth%d %s %v", id, index, own, addresses)
}

// soundLeases compares the leases with what the pods were told, and finds addresses that the node does not have.
func (r *runtime) soundLeases(pool vpc.Supply, leases vpc.Leases) error {
	var wrong []error
	var held, told []string
	for _, h := range leases.Held {
		held = append(held, fmt.Sprintf("%s %s", h.Container, h.Address))
		if _, ok := pool.Find(h.Address); !ok {
			wrong = append(wrong, fmt.Errorf("%s: no interface has it", h))
		}
	}
	for _, p := range r.all() {
		told = append(told, fmt.Sprintf("%s %s", p.container, p.address))
	}
	slices.Sort(held)
	slices.Sort(told)
	if len(leases.Waiting) > 0 {
		wrong = append(wrong, fmt.Errorf("leases: nobody is starting, and %v wait", leases.Waiting))
	}
	return errors.Join(append(wrong, leases.Validate(), same("leases", held, "pods", told))...)
}

// soundKernel compares the node's devices, routes and rules with what they are to be.
func (r *runtime) soundKernel(pool vpc.Supply, leases vpc.Leases) error {
	devices, err := r.net.List()
	if err != nil {
		return err
	}
	rules, err := r.net.Rules()
	if err != nil {
		return err
	}
	var have, want []string
	for _, d := range devices {
		have = append(have, d.Name)
		for _, route := range d.Routes {
			if d.Name != "eth0" && d.Name != "lo" && route.To.Addr().Is4() {
				have = append(have, fmt.Sprintf("%s: %s", d.Name, route))
			}
		}
	}
	for _, rule := range rules {
		have = append(have, rule.String())
	}
	plan := link.PlanHost(pool, leases, 9001)
	want = append(want, "lo", "eth0")
	for _, d := range plan.Devices {
		want = append(want, d.Name)
		for _, route := range d.Routes {
			want = append(want, fmt.Sprintf("%s: %s", d.Name, route))
		}
	}
	for _, lease := range leases.Held {
		w := link.Plan(lease, 9001)
		want = append(want, w.Host.Name)
		for _, route := range w.Host.Routes {
			want = append(want, fmt.Sprintf("%s: %s", w.Host.Name, route))
		}
	}
	for _, rule := range plan.Rules {
		want = append(want, rule.String())
	}
	slices.Sort(have)
	slices.Sort(want)
	return same("kernel", have, "plan", want)
}

// same compares two sorted lists.
func same(a string, has []string, b string, wants []string) error {
	var wrong []error
	for _, v := range has {
		if !slices.Contains(wants, v) {
			wrong = append(wrong, fmt.Errorf("%s has %q, which %s has not", a, v, b))
		}
	}
	for _, v := range wants {
		if !slices.Contains(has, v) {
			wrong = append(wrong, fmt.Errorf("%s has %q, which %s has not", b, v, a))
		}
	}
	if len(wrong) == 0 && len(has) != len(wants) {
		wrong = append(wrong, fmt.Errorf("%s has %d, some twice, and %s %d", a, len(has), b, len(wants)))
	}
	return errors.Join(wrong...)
}
