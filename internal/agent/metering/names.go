package metering

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// grace is how much earlier or later than in the kernel news of an owner may come.
const grace = 2 * time.Second

// names tells the meter who has which address and what is a Service's, as the tables say it. What was told
// is in the tables as they were then. One goroutine uses it; note may be called from anywhere.
type names struct {
	node      string
	owners    *meter.Owners
	residents *state.Tables          // nodes, pods, endpoints of headless Services
	served    func() *state.Snapshot // Services; nil: not known yet
	local     func() ([]netip.Addr, error)
	cgroups   func(container string) []uint64
	log       *slog.Logger

	recalled   []meter.Tenure  // what an earlier agent kept of pods
	told       *state.Snapshot // of residents
	toldServed *state.Snapshot
	processes  map[uint64]process
	own        []netip.Addr // the node's addresses that the API does not know
	looked     time.Duration

	mu    sync.Mutex
	all   bool
	stale map[model.Name]bool
}

// process is whose the processes of a cgroup are.
type process struct {
	container string
	who       model.Party
	from      time.Duration
}

// note says which Services may be others than they were.
func (n *names) note(all bool, changed []state.Change[model.Name]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = n.all || all
	for _, c := range changed {
		n.stale[c.Of] = true
	}
}

// waiting says what is not known yet. Until all is, an address of a pod would be taken for one outside.
func (n *names) waiting() string {
	if missing := n.residents.Snapshot().Missing(); len(missing) > 0 {
		return fmt.Sprintf("waiting for the API server to list %v", missing)
	}
	if n.served() == nil {
		return "waiting for the node's first sync"
	}
	return ""
}

// urgent tells whether there is news about an address that is counted by, or of a pod of this node: the
// counters must be read before and after it.
func (n *names) urgent(counted map[netip.Addr]bool) bool {
	if n.told == nil {
		return true
	}
	now := n.residents.Snapshot()
	for _, c := range now.Changes(n.told.Revision()).Pods {
		was, is := pod(n.told, c.Of), pod(now, c.Of)
		for _, f := range append(without(was, is), without(is, was)...) {
			if f.who.Node == n.node || counted[f.place.Addr] {
				return true
			}
		}
	}
	return false
}

// holding is a place that somebody has, and since when at the earliest.
type holding struct {
	place meter.Place
	who   model.Party
	since time.Time
}

// without returns what is in a and not in b.
func without(a, b []holding) (out []holding) {
	for _, f := range a {
		if !slices.ContainsFunc(b, func(g holding) bool { return f.place == g.place && f.who == g.who }) {
			out = append(out, f)
		}
	}
	return out
}

func zone(s *state.Snapshot, node string) string {
	n, _ := s.Node(node)
	return n.Zone
}

func pod(s *state.Snapshot, name model.Name) (out []holding) {
	p, ok := s.Pod(name)
	if !ok || p.HostNetwork {
		return nil
	}
	who := model.Party{Kind: model.PodParty, Zone: zone(s, p.Node), Node: p.Node, Namespace: p.Namespace, Workload: p.Workload}
	for _, a := range p.Addresses {
		out = append(out, holding{meter.Place{Addr: a}, who, p.Created})
	}
	return out
}

func node(s *state.Snapshot, name string) (out []holding) {
	n, _ := s.Node(name)
	for _, a := range n.Addresses {
		out = append(out, holding{place: meter.Place{Addr: a}, who: model.Party{Kind: model.NodeParty, Zone: n.Zone, Node: name}})
	}
	return out
}

// tell tells all that is new. It holds from an instant on, the wall clock's wall.
func (n *names) tell(at time.Duration, wall time.Time) {
	now, was := n.residents.Snapshot(), n.told
	n.told = now
	first := was == nil
	var pods, headless []model.Name
	var nodes []string
	if first {
		was = state.New().Snapshot()
		for p := range now.Pods() {
			pods = append(pods, p.Name)
		}
		for x := range now.Nodes() {
			nodes = append(nodes, x.Name)
		}
		for s := range now.AllSlices() {
			headless = append(headless, s.ServiceName())
		}
	} else {
		changes := now.Changes(was.Revision())
		for _, c := range changes.Nodes {
			nodes = append(nodes, c.Of)
		}
		for _, c := range changes.Pods {
			pods = append(pods, c.Of)
		}
		for _, c := range changes.Services {
			headless = append(headless, c.Of)
		}
		pods = append(pods, movedWith(nodes, was, now)...)
	}
	slices.SortFunc(pods, model.Name.Compare)
	pods = slices.Compact(pods)
	n.hold(was, now, nodes, pods, at, wall, first)
	for _, svc := range headless {
		n.back(was, now, svc, at, first)
	}
	n.run(was, now, pods, at, wall)
	n.here(now, at)
	n.services(at)
	n.residents.Forget(now.Revision())
}

// movedWith lists the pods of nodes whose zone is another now.
func movedWith(nodes []string, was, now *state.Snapshot) (out []model.Name) {
	moved := map[string]bool{}
	for _, x := range nodes {
		if zone(was, x) != zone(now, x) {
			moved[x] = true
		}
	}
	if len(moved) == 0 {
		return nil
	}
	for p := range now.Pods() {
		if moved[p.Node] {
			out = append(out, p.Name)
		}
	}
	return out
}

// hold tells who has which address. Whoever leaves goes before who comes.
func (n *names) hold(was, now *state.Snapshot, nodes []string, pods []model.Name, at time.Duration, wall time.Time, first bool) {
	var gone, come []holding
	compare := func(before, after []holding) {
		gone, come = append(gone, without(before, after)...), append(come, without(after, before)...)
	}
	for _, x := range nodes {
		compare(node(was, x), node(now, x))
	}
	for _, p := range pods {
		compare(pod(was, p), pod(now, p))
	}
	if first {
		for _, t := range n.recalled {
			n.owners.Own(meter.Place{Addr: t.Addr}, t.Who, t.From, t.To)
		}
		// Who went while there was no agent: an address that the next one has, it left for that one.
		defer n.left(at)
	}
	for _, f := range gone {
		n.owners.Leave(f.place, f.who, at)
	}
	slices.SortStableFunc(come, func(a, b holding) int { return a.since.Compare(b.since) })
	for _, f := range come {
		if first && slices.ContainsFunc(n.recalled, func(t meter.Tenure) bool { return t.Addr == f.place.Addr && t.Who == f.who && t.To == 0 }) {
			continue
		}
		since := sinceBoot(f.since, at, wall)
		takes := at
		if first {
			takes = since // of two that have one address the younger has it since it is there
		}
		n.owners.Take(f.place, f.who, since, takes)
	}
}

// left ends what an earlier agent kept of pods that are not there any more.
func (n *names) left(at time.Duration) {
	there := map[meter.Place]model.Party{}
	for p := range n.told.Pods() {
		for _, f := range pod(n.told, p.Name) {
			there[f.place] = f.who
		}
	}
	for _, t := range n.recalled {
		if place := (meter.Place{Addr: t.Addr}); there[place] != t.Who {
			n.owners.Leave(place, t.Who, at)
		}
	}
	n.recalled = nil
}

// pods are the owners of addresses that are pods.
func (n *names) pods(of map[netip.Addr]bool) []meter.Tenure {
	return slices.DeleteFunc(n.owners.Last(of), func(t meter.Tenure) bool { return t.Who.Kind != model.PodParty })
}

// sinceBoot is when something was, on the clock of readings, or 0 if it was before that began.
func sinceBoot(t time.Time, at time.Duration, wall time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return min(max(at-wall.Sub(t), 0), at)
}

// back tells the endpoints of a headless Service.
func (n *names) back(was, now *state.Snapshot, svc model.Name, at time.Duration, first bool) {
	before, after := endpoints(was, svc), endpoints(now, svc)
	from := at
	if first {
		from = 0
	}
	for p, t := range before {
		if _, still := after[p]; !still {
			n.owners.Unback(p, t, at)
		}
	}
	for p, t := range after {
		if _, had := before[p]; !had {
			n.owners.Back(p, t, from, 0)
		}
	}
}

func endpoints(s *state.Snapshot, svc model.Name) map[meter.Place]meter.Target {
	out := map[meter.Place]meter.Target{}
	for _, slice := range s.Slices(svc) {
		for _, p := range slice.Ports {
			for _, e := range slice.Endpoints {
				out[meter.Place{Addr: e.Addr, Port: p.Port, Protocol: p.Protocol}] = meter.Target{Service: svc, Via: model.ViaHeadless, Port: p.Port}
			}
		}
	}
	return out
}

// run tells whose the processes in the node's network are.
func (n *names) run(was, now *state.Snapshot, pods []model.Name, at time.Duration, wall time.Time) {
	for _, name := range pods {
		before, _ := was.Pod(name)
		after, _ := now.Pod(name)
		for id, p := range n.processes { // those of a few pods
			if slices.Contains(before.Containers, p.container) && !slices.Contains(after.Containers, p.container) {
				n.owners.Run(id, p.who, p.from, max(at, p.from+1))
				delete(n.processes, id)
			}
		}
		for _, container := range after.Containers {
			if slices.Contains(before.Containers, container) {
				continue
			}
			who := model.Party{Kind: model.NodeParty, Zone: zone(now, after.Node), Node: after.Node, Namespace: after.Namespace, Workload: after.Workload}
			for _, id := range n.cgroups(container) {
				n.processes[id] = process{container, who, sinceBoot(after.Created, at, wall)}
				n.owners.Run(id, who, n.processes[id].from, 0)
			}
		}
	}
}

// lookAround is between two looks at the node's own addresses, of which nobody tells.
const lookAround = time.Minute

// here tells which node this is, and which addresses it has that the API does not know, such as those of its
// bridges and its loopback.
func (n *names) here(now *state.Snapshot, at time.Duration) {
	row, ok := now.Node(n.node)
	self := model.Party{Kind: model.NodeParty, Zone: row.Zone, Node: n.node}
	if !ok {
		self = n.owners.Self // deregistered, and still where it was
	}
	if n.looked != 0 && self == n.owners.Self && at-n.looked < lookAround {
		return
	}
	n.looked = at
	all, err := n.local()
	if err != nil {
		n.log.Warn("meter: the node's own addresses", "err", err)
		all = n.own
	}
	all = slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(row.Addresses, a) })
	for _, a := range n.own {
		if self != n.owners.Self || !slices.Contains(all, a) {
			n.owners.Leave(meter.Place{Addr: a}, n.owners.Self, at)
		}
	}
	for _, a := range all {
		if self != n.owners.Self || !slices.Contains(n.own, a) {
			n.owners.Take(meter.Place{Addr: a}, self, 0, at)
		}
	}
	n.own, n.owners.Self = all, self
}

// services tells what is a Service's.
func (n *names) services(at time.Duration) {
	now, was, from := n.served(), n.toldServed, at
	n.toldServed = now
	first := was == nil
	if first {
		was, from = state.New().Snapshot(), 0
	}
	for _, p := range now.ServiceCIDRs() {
		n.owners.Block(p, model.Party{Kind: model.Unknown}) // one of a Service without endpoints, or of none
	}
	n.mu.Lock()
	all, stale := n.all, n.stale
	n.all, n.stale = false, map[model.Name]bool{}
	n.mu.Unlock()
	if all || first {
		for _, s := range []*state.Snapshot{was, now} {
			for svc := range s.Services() {
				stale[svc.Name] = true
			}
		}
	}
	for name := range stale {
		before, after := fronts(was, name), fronts(now, name)
		for f, t := range before {
			if after[f] != t {
				n.unserve(f, t, at)
			}
		}
		for f, t := range after {
			if before[f] != t {
				n.serve(f, t, from)
			}
		}
	}
}

// front is where a Service answers: a place, or a port at every node's addresses.
type front struct {
	meter.Place // without an address for a node port
}

func (n *names) serve(f front, t meter.Target, from time.Duration) {
	if f.Addr.IsValid() {
		n.owners.Serve(f.Place, t, from, 0)
	} else {
		n.owners.ServeNodes(f.Port, f.Protocol, t, from, 0)
	}
}

func (n *names) unserve(f front, t meter.Target, at time.Duration) {
	if f.Addr.IsValid() {
		n.owners.Unserve(f.Place, t, at)
	} else {
		n.owners.UnserveNodes(f.Port, f.Protocol, t, at)
	}
}

func fronts(s *state.Snapshot, name model.Name) map[front]meter.Target {
	svc, ok := s.Service(name)
	if !ok {
		return nil
	}
	out := map[front]meter.Target{}
	add := func(a netip.Addr, p model.ServicePort, port uint16, via model.Via) {
		f := front{meter.Place{Addr: a, Port: port, Protocol: p.Protocol}}
		if _, had := out[f]; !had { // an external address may be the load balancer's
			out[f] = meter.Target{Service: name, Via: via, Port: p.Port}
		}
	}
	for _, p := range svc.Ports {
		for _, a := range svc.ClusterIPs {
			add(a, p, p.Port, model.ViaClusterIP)
		}
		for _, a := range svc.LoadBalancerIPs {
			add(a, p, p.Port, model.ViaLoadBalancer)
		}
		for _, a := range svc.ExternalIPs {
			add(a, p, p.Port, model.ViaExternalIP)
		}
		if p.NodePort != 0 {
			add(netip.Addr{}, p, p.NodePort, model.ViaNodePort)
		}
	}
	return out
}
