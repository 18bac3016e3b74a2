package state

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Snapshot is the tables at one moment. It is safe for use by many and costs nothing to keep
// beyond the memory of rows that have changed since.
type Snapshot struct {
	contents
	revision uint64
	missing  []Source
	changed  chan struct{}
}

// Revision grows with every change; it is what Changes and Forget speak of.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Changed is closed when the tables are no longer as in this snapshot.
func (s *Snapshot) Changed() <-chan struct{} { return s.changed }

// Missing returns the sources that have not delivered everything yet. Until it is empty,
// what is absent from the tables may just not have arrived: nothing may be pruned.
func (s *Snapshot) Missing() []Source { return slices.Clone(s.missing) }

// Node returns a node by its name.
func (s *Snapshot) Node(name string) (model.Node, bool) {
	return s.nodes.value(name)
}

// Nodes yields every node, by name.
func (s *Snapshot) Nodes() iter.Seq[model.Node] {
	return s.nodes.values()
}

// Service returns a service by its name.
func (s *Snapshot) Service(name model.Name) (model.Service, bool) {
	return s.services.value(name)
}

// Services yields every service, by namespace and name.
func (s *Snapshot) Services() iter.Seq[model.Service] {
	return s.services.values()
}

// Unserved tells why no dataplane has anything to do for a service that exists: a headless one, say.
func (s *Snapshot) Unserved(name model.Name) (why string, ok bool) {
	return s.unserved.value(name)
}

// AllUnserved yields every service of that sort and why it is one, by namespace and name.
func (s *Snapshot) AllUnserved() iter.Seq2[model.Name, string] {
	return func(yield func(model.Name, string) bool) {
		for name, why := range s.unserved.all() {
			if !yield(name, *why) {
				return
			}
		}
	}
}

// Route returns the ZoneRoute of a service.
func (s *Snapshot) Route(service model.Name) (model.ZoneRoute, bool) {
	return s.routes.value(service)
}

// Routes yields every ZoneRoute, by namespace and name.
func (s *Snapshot) Routes() iter.Seq[model.ZoneRoute] {
	return s.routes.values()
}

// Pod returns a pod by its name.
func (s *Snapshot) Pod(name model.Name) (model.Pod, bool) {
	return s.pods.value(name)
}

// Pods yields every pod that runs or will, by namespace and name.
func (s *Snapshot) Pods() iter.Seq[model.Pod] {
	return s.pods.values()
}

// Mode returns what a namespace says about the mode of its services; empty if it says nothing.
func (s *Snapshot) Mode(name string) model.Mode {
	n, _ := s.namespaces.value(name)
	return n.mode
}

// NamespaceModes returns the namespaces that say a mode, and which.
func (s *Snapshot) NamespaceModes() map[string]model.Mode {
	out := map[string]model.Mode{}
	for name, n := range s.namespaces.all() {
		if n.mode != "" {
			out[name] = n.mode
		}
	}
	return out
}

// InvalidModes returns the namespaces that say something which is no mode, and what.
func (s *Snapshot) InvalidModes() map[string]string {
	out := map[string]string{}
	for name, n := range s.namespaces.all() {
		if n.mode == "" {
			out[name] = n.invalid
		}
	}
	return out
}

// Namespaces yields the name of every namespace that says something.
func (s *Snapshot) Namespaces() iter.Seq[string] { return s.namespaces.keys() }

// ServiceCIDRs returns the ranges from which Services get their addresses, in order, each once.
func (s *Snapshot) ServiceCIDRs() []netip.Prefix {
	var out []netip.Prefix
	for prefixes := range s.cidrs.values() {
		out = append(out, prefixes...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// ServiceCIDRNames yields the name of every object that says such ranges.
func (s *Snapshot) ServiceCIDRNames() iter.Seq[string] { return s.cidrs.keys() }

// AllSlices yields every endpoint slice, by namespace and name.
func (s *Snapshot) AllSlices() iter.Seq[model.Slice] {
	return s.slices.values()
}

// Slices returns the endpoint slices of a service, by name.
func (s *Snapshot) Slices(service model.Name) []model.Slice {
	var out []model.Slice
	for o, slice := range s.byService.from(owned{service: service}) {
		if o.service != service {
			break
		}
		out = append(out, *slice)
	}
	return out
}

// Changes is what is different from an earlier revision.
type Changes struct {
	Services []Change[model.Name] // in order of their latest change; deleted ones included
	Nodes    []Change[string]
	Pods     []Change[model.Name]
	CIDRs    bool // what ServiceCIDRs returns may be different
}

// Change names one thing that is different, and since when this process could know.
type Change[T any] struct {
	Of    T
	Since time.Time
}

// Changes returns what has changed after a revision, in time proportional to their number. It is
// complete for a reader that began by reading a whole snapshot with nothing Missing, and as long
// as nobody forgets more than that reader has seen.
func (s *Snapshot) Changes(after uint64) Changes {
	var out Changes
	for _, c := range s.news.from(after + 1) {
		switch {
		case c.subject.cidrs:
			out.CIDRs = true
		case c.subject.node != "":
			out.Nodes = append(out.Nodes, Change[string]{c.subject.node, c.since})
		case c.subject.pod != (model.Name{}):
			out.Pods = append(out.Pods, Change[model.Name]{c.subject.pod, c.since})
		default:
			out.Services = append(out.Services, Change[model.Name]{c.subject.service, c.since})
		}
	}
	return out
}
