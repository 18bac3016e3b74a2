package upstream_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/service"
)

const cases = 10_000

// Whatever the objects say, the node answers at the addresses at which kube-proxy would, for whom it
// would, and behind each is what kube-proxy would have there.
func TestPlanIsUpstreams(t *testing.T) {
	seen := map[string]int{}
	for range cases / 100 { // rapid runs 100 cases a check
		rapid.Check(t, func(t *rapid.T) {
			node, svc := drawNode(t), drawService(t)
			objects := drawObjects(t)
			want := map[service.Key]frontend{}
			for _, family := range []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol} {
				planUpstream(family, node, svc, objects).into(want)
			}
			ours, served := reflect.Service(svc)
			if !served {
				if len(want) > 0 {
					t.Fatalf("not served, but upstream answers at %v", want)
				}
				seen["not served"]++
				return
			}
			plan := service.Plan(node, ours, convert(objects), nil)
			same(t, want, plan)
			for _, f := range plan {
				count(seen, f)
			}
		})
	}
	t.Logf("frontends compared: %v", seen)
	for _, v := range []string{
		"ClusterIP: balance, node hints", "NodePort: balance, zone hints", "LoadBalancer: balance, all endpoints", "ExternalIP: balance, terminating",
		"ClusterIP: balance, internalTrafficPolicy Local", "ClusterIP: drop, internalTrafficPolicy Local", "ExternalIP: drop, externalTrafficPolicy Local",
		"LoadBalancer: balance, externalTrafficPolicy Local, terminating", "NodePort: reject, no endpoints", "LoadBalancer: reject, no endpoints",
		"IPv4", "IPv6", "TCP", "UDP", "SCTP", "inside", "affinity", "sources", "sources and the address itself", "not served",
	} {
		if seen[v] == 0 {
			t.Errorf("no case ended in %q: the generator is too narrow", v)
		}
	}
}

// What a load balancer is told: at which port, and how many endpoints there are.
func TestHealthIsUpstreams(t *testing.T) {
	counts := map[int]int{}
	for range cases / 1000 {
		rapid.Check(t, func(t *rapid.T) {
			node, svc := drawNode(t), drawService(t)
			objects := drawObjects(t)
			four := planUpstream(v1.IPv4Protocol, node, svc, objects)
			six := planUpstream(v1.IPv6Protocol, node, svc, objects)
			ours, served := reflect.Service(svc)
			if !served {
				return
			}
			if want := max(four.checkPort, six.checkPort); ours.HealthCheckNodePort != want {
				t.Fatalf("health check node port %d, upstream %d", ours.HealthCheckNodePort, want)
			}
			// Upstream's two families do not know of each other; each answers for itself.
			want := 0
			if four.served {
				want = four.local
			}
			if six.served {
				want = max(want, six.local)
			}
			got := service.Health(node, ours, convert(objects))
			if got != want {
				t.Fatalf("%d local endpoints, upstream %d and %d", got, four.local, six.local)
			}
			counts[got]++
		})
	}
	t.Logf("local endpoints: %v", counts)
	if counts[0] == 0 || counts[1] == 0 || counts[2] == 0 {
		t.Errorf("%v: the generator is too narrow", counts)
	}
}

func same(t *rapid.T, want map[service.Key]frontend, plan []service.Frontend) {
	got := map[service.Key]frontend{}
	for _, f := range plan {
		got[f.Key()] = seenFrom(f)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b service.Key) bool { return a == b })); d != "" {
		t.Fatalf("(-upstream +ours):\n%s\n%s", d, service.Text(plan))
	}
}

// frontend is what both sides say of an address.
type frontend struct {
	Kind       service.Kind
	Verdict    service.Verdict
	Backends   []string
	Inside     []string // nil: as outside
	Masquerade bool
	Affinity   time.Duration
	Sources    string // nobody else may use it
	Port       string
}

func seenFrom(f service.Frontend) frontend {
	out := frontend{
		Kind: f.Kind, Verdict: f.Verdict, Backends: ours(f.Choice), Masquerade: f.Masquerade, Affinity: f.Affinity, Port: f.Port,
		Sources: probe(func(a netip.Addr) bool {
			return f.Sources == nil || slices.ContainsFunc(f.Sources, func(r netip.Prefix) bool { return r.Contains(a) })
		}, f.Addr.Addr().Is6()),
	}
	if f.Inside != nil {
		out.Inside = ours(*f.Inside)
	}
	return out
}

func ours(c service.Choice) []string {
	var out []string
	for _, b := range c.Backends {
		out = append(out, b.Addr.String())
	}
	slices.Sort(out)
	return out
}

// probe asks for an address inside, beside and at the ends of every range that a test draws.
func probe(may func(netip.Addr) bool, v6 bool) string {
	texts := []string{"9.255.255.255", "10.0.0.0", "10.1.2.3", "10.255.255.255", "11.0.0.0", "192.0.2.7", "192.168.1.10", "192.168.2.0",
		"198.51.100.1", "198.51.100.2", "8.8.8.8"}
	if v6 {
		texts = []string{"fcff::1", "fd00::", "fd00::10", "fdff::1", "fe00::", "2001:db8::9", "2001:db8:1::1", "2001:db8:1::2", "2600::1"}
	}
	var out []string
	for _, s := range texts {
		if may(netip.MustParseAddr(s)) {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func count(seen map[string]int, f service.Frontend) {
	rule, _, _ := strings.Cut(f.Why, ":")
	seen[fmt.Sprintf("%s: %s, %s", f.Kind, f.Verdict, rule)]++
	seen[f.Protocol.String()]++
	for what, is := range map[string]bool{
		"IPv6": f.Addr.Addr().Is6(), "IPv4": f.Addr.Addr().Is4(), "inside": f.Inside != nil, "affinity": f.Affinity > 0,
		"sources":                        f.Sources != nil,
		"sources and the address itself": slices.Contains(f.Sources, netip.PrefixFrom(f.Addr.Addr(), f.Addr.Addr().BitLen())),
	} {
		if is {
			seen[what]++
		}
	}
}

func convert(objects []*discovery.EndpointSlice) []model.Slice {
	var out []model.Slice
	for _, o := range objects {
		if s, ok := reflect.Slice(o); ok {
			out = append(out, s)
		}
	}
	return out
}

// drawObjects are slices of both families, of which some do not say what the API then assumes.
func drawObjects(t *rapid.T) []*discovery.EndpointSlice {
	var out []*discovery.EndpointSlice
	for _, s := range append(drawFamily(t, false), drawFamily(t, true)...) {
		o := apiSlice(s)
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			if *e.Conditions.Ready && rapid.Bool().Draw(t, "readyUnsaid") {
				e.Conditions.Ready = nil
			}
			if *e.Conditions.Serving && rapid.Bool().Draw(t, "servingUnsaid") {
				e.Conditions.Serving = nil
			}
			if !*e.Conditions.Terminating && rapid.Bool().Draw(t, "terminatingUnsaid") {
				e.Conditions.Terminating = nil
			}
			e.Addresses[0] = padded(t, e.Addresses[0])
		}
		out = append(out, o)
	}
	return out
}

// padded sometimes writes an IPv4 address as nobody should, and as Kubernetes reads it nevertheless.
func padded(t *rapid.T, addr string) string {
	parts := strings.Split(addr, ".")
	if len(parts) != 4 || rapid.IntRange(0, 3).Draw(t, "padded") > 0 {
		return addr
	}
	for i, p := range parts {
		parts[i] = strings.Repeat("0", 3-len(p)) + p
	}
	return strings.Join(parts, ".")
}
