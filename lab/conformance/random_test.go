//go:build kernel

package conformance

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/lab/rig"
)

var (
	randomCases = flag.Int("cases", 200, "random Services to try on each path")
	randomSeed  = flag.Uint64("seed", 0, "of random Services; 0: another one each time")
)

const (
	servicesAtOnce  = 20 // on one node
	attemptsForEach = 6
)

// TestRandomClusters tries random Services with random endpoints on nodes of random zones: our plan,
// kube-proxy's own code and the real kernel have to agree on who answers whom.
func TestRandomClusters(t *testing.T) {
	seed := cmp.Or(*randomSeed, uint64(time.Now().UnixNano()))
	t.Logf("-seed %d", seed)
	for _, p := range paths {
		t.Run(string(p), func(t *testing.T) {
			s, seen := newStage(t, p), map[string]int{}
			for begin := 0; begin < *randomCases && !t.Failed(); begin += servicesAtOnce {
				d := drawing{rand.New(rand.NewPCG(seed, uint64(begin)))}
				s.randomCluster(t, d, min(servicesAtOnce, *randomCases-begin), seen)
			}
			t.Logf("attempts: %v", seen)
			for _, what := range []string{
				"ClusterIP", "NodePort", "ExternalIP", "LoadBalancer", "answered", refused, silence, "masqueraded", "as itself", "sticky", "of several", "IPv4", "IPv6",
			} {
				if seen[what] == 0 && *randomCases >= 200 {
					t.Errorf("nothing was %q: the drawing is too narrow", what)
				}
			}
		})
	}
}

func (s *stage) randomCluster(t *testing.T, d drawing, n int, seen map[string]int) {
	s.clear()
	node := theNode()
	if zone := d.zone(); zone != "" {
		node.Labels[corev1.LabelTopologyZone] = zone
	} else {
		delete(node.Labels, corev1.LabelTopologyZone)
	}
	objects := []any{node}
	slicesOf := map[int][]*discoveryv1.EndpointSlice{}
	for i := range n {
		web := d.service(i + 1)
		slicesOf[i+1] = d.slices(s, web)
		objects = append(objects, web, slicesOf[i+1])
	}
	s.set(objects...)
	for i := range n {
		name := model.Name{Namespace: namespace, Name: svc(i + 1).Name}
		web, plan := s.services[name], s.plan(name)
		for _, a := range d.attempts(i+1, web) {
			ours, ok := s.byPlan(plan, a)
			theirs := s.byUpstream(web, slicesOf[i+1], a)
			wrong := s.come(t, a, ours)
			if ok && reflect.DeepEqual(ours, theirs) && wrong == "" {
				count(seen, a, ours)
				continue
			}
			text, _ := yaml.Marshal([]any{web, slicesOf[i+1]})
			t.Errorf("%s to %s %s, zone %q: plan %+v, upstream %+v, kernel: %s\n%s", a.from, a.to.what, a.to.addr(a.v6),
				node.Labels[corev1.LabelTopologyZone], ours, theirs, cmp.Or(wrong, "as planned"), text)
			return
		}
	}
}

// come tells what the kernel does otherwise.
func (s *stage) come(t *testing.T, a attempt, want fate) (wrong string) {
	t.Helper()
	to := a.to
	to.never = want.sticky || a.kind == service.LoadBalancer && s.guarded(a)
	if want.how != "" {
		patience := patienceForAnswers
		if want.how == silence {
			patience = patienceForSilence
		}
		if got := s.ask(t, a.from, to, a.v6, 1, patience)[0]; got.Error != want.how {
			return fmt.Sprintf("%q from %s", got.Error, got.Server)
		}
		return ""
	}
	if !want.sticky {
		return s.reached(t, a.from, to, a.v6, want.servers, want.masked)
	}
	got := s.only(t, a.from, to, a.v6)
	s.tick()
	if again := s.only(t, a.from, to, a.v6); again != got {
		return "first answered by " + got + ", then by " + again
	}
	if !slices.Contains(want.servers, got) {
		return "always answered by " + got
	}
	return ""
}

// guarded tells whether the Service at the address has source ranges.
func (s *stage) guarded(a attempt) bool {
	for name := range s.services {
		for _, f := range s.plan(name) {
			if f.Addr == a.to.addr(a.v6) && f.Sources != nil {
				return true
			}
		}
	}
	return false
}

func count(seen map[string]int, a attempt, f fate) {
	seen[string(a.kind)]++
	seen[cmp.Or(f.how, "answered")]++
	seen[map[bool]string{false: "IPv4", true: "IPv6"}[a.v6]]++
	if f.how == "" {
		seen[map[bool]string{false: "as itself", true: "masqueraded"}[f.masked]]++
	}
	if f.sticky {
		seen["sticky"]++
	}
	if len(f.servers) > 1 {
		seen["of several"]++
	}
}

// drawing draws objects as the API server lets them pass.
type drawing struct{ *rand.Rand }

func (d drawing) one(in int) bool { return d.IntN(in) == 0 }

func (d drawing) zone() string { return []string{"", "a", "a", "b", "c"}[d.IntN(5)] }

func (d drawing) service(n int) *corev1.Service {
	web := svc(n)
	switch d.IntN(4) {
	case 1:
		nodePort(web)
	case 2, 3:
		balanced(web)
	}
	if d.one(2) {
		external(web)
	}
	if d.one(3) {
		internalLocal(web)
	}
	if d.one(2) {
		externalLocal(web)
		if web.Spec.Type == corev1.ServiceTypeLoadBalancer {
			web.Spec.HealthCheckNodePort = int32(32000 + n)
		}
	}
	if d.one(6) {
		sticky(long)(web)
	}
	if web.Spec.Type == corev1.ServiceTypeLoadBalancer && d.one(2) {
		for _, r := range []string{rig.StrangerV4 + "/24", rig.StrangerV6 + "/64", "192.168.0.0/16", "fd00:192:168::/46", rig.NodeV4 + "/32", rig.NodeV6 + "/128"} {
			if d.one(3) {
				web.Spec.LoadBalancerSourceRanges = append(web.Spec.LoadBalancerSourceRanges, r)
			}
		}
	}
	switch d.IntN(4) {
	case 0:
		web.Spec.ClusterIPs, web.Spec.IPFamilies = web.Spec.ClusterIPs[:1], web.Spec.IPFamilies[:1]
	case 1:
		web.Spec.ClusterIPs, web.Spec.IPFamilies = web.Spec.ClusterIPs[1:], web.Spec.IPFamilies[1:]
	}
	web.Spec.ClusterIP = web.Spec.ClusterIPs[0]
	return web
}

// slices draws up to five endpoints, spread over two slices of each family; an address is in both
// at times, dying in one of them. (Of two that die kube-proxy takes the one that it meets last.)
func (d drawing) slices(s *stage, web *corev1.Service) []*discoveryv1.EndpointSlice {
	tidy := d.one(2) // all ready, all with hints: only then are hints obeyed
	var first, second []endpoint
	for _, host := range []string{"pod2", "pod3", "pod4", "remote", "other"} {
		if d.one(2) {
			continue
		}
		e := d.endpoint(host, tidy)
		if d.one(2) {
			first = append(first, e)
			continue
		}
		second = append(second, e)
		if d.one(4) && !e.leaving && !e.gone {
			first = append(first, endpoint{host: host, gone: true})
		}
	}
	more := s.behind(web, second...)
	for _, slice := range more {
		slice.Name += "-more"
	}
	return append(s.behind(web, first...), more...)
}

func (d drawing) endpoint(host string, tidy bool) endpoint {
	e := endpoint{host: host}
	if !tidy {
		switch d.IntN(6) {
		case 0:
			e.unready = true
		case 1:
			e.gone = true
		case 2, 3:
			e.leaving = true
		}
		if d.one(2) {
			return e
		}
	}
	e.zones = []string{"a", "b", "c", "a b"}[d.IntN(4)]
	if d.one(2) {
		e.nodes = []string{"n1", "n2", "n1 n3"}[d.IntN(3)]
	}
	return e
}

// attempts draws who connects where.
func (d drawing) attempts(n int, web *corev1.Service) []attempt {
	kinds := map[service.Kind]target{service.ClusterIP: clusterIP(n)}
	if web.Spec.Type != corev1.ServiceTypeClusterIP {
		kinds[service.NodePort] = nodeAt(n)
	}
	if web.Spec.Type == corev1.ServiceTypeLoadBalancer {
		kinds[service.LoadBalancer] = balancer(n)
	}
	if len(web.Spec.ExternalIPs) > 0 {
		kinds[service.ExternalIP] = externalIP(n)
	}
	var all []attempt
	for _, kind := range []service.Kind{service.ClusterIP, service.NodePort, service.LoadBalancer, service.ExternalIP} {
		to, ok := kinds[kind]
		for _, text := range web.Spec.ClusterIPs {
			for _, from := range []string{"pod0", "node", "stranger", "remote"} {
				if ok {
					v6 := netip.MustParseAddr(text).Is6()
					all = append(all, attempt{from, to, kind, v6}, attempt{from, overUDP(to), kind, v6})
				}
			}
		}
	}
	d.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(attemptsForEach, len(all))]
}
