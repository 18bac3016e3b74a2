//go:build kernel

package conformance

import (
	"testing"

	"github.com/zonewise/zonewise/internal/service/nft"
)

// TestMasquerade tries the three sorts of source with every kind of address and policy: the
// situations of kube-proxy's own TestInternalExternalMasquerade, and external addresses beside.
func TestMasquerade(t *testing.T) {
	onEachPath(t, []row{
		{"18 pods keep their address at a ClusterIP", func(t *testing.T, s *stage) {
			s.policies()
			s.reachAll(t, "pod0", clusterIP(1), "pod2 remote", kept)
			s.reachAll(t, "pod0", clusterIP(2), "pod2 remote", kept)
			s.reachAll(t, "pod0", clusterIP(3), "pod2", kept)
		}},
		{"19 who is off the node is masqueraded at a ClusterIP", func(t *testing.T, s *stage) {
			s.policies()
			for _, from := range []string{"stranger", "remote"} {
				s.reachAll(t, from, clusterIP(1), "pod2 remote", masked)
				s.reachAll(t, from, clusterIP(2), "pod2 remote", masked)
				s.reachAll(t, from, clusterIP(3), "pod2", masked)
			}
		}},
		{"20 from outside to all endpoints masqueraded, to local ones as oneself", func(t *testing.T, s *stage) {
			s.policies()
			for _, kind := range outward {
				for _, from := range []string{"stranger", "remote", "pod0", "node"} {
					s.reachAll(t, from, kind(1), "pod2 remote", masked)
					s.reachAll(t, from, kind(3), "pod2 remote", masked) // internalTrafficPolicy is not about these
				}
				s.reachAll(t, "stranger", kind(2), "pod2", kept)
				s.reachAll(t, "remote", kind(2), "pod2", kept)
			}
		}},
		{"21 pods see all endpoints of what is Local to outsiders, as themselves", func(t *testing.T, s *stage) {
			s.policies()
			for _, kind := range outward {
				s.reachAll(t, "pod0", kind(2), "pod2 remote", kept)
			}
		}},
		{"22 and so does the node, masqueraded", func(t *testing.T, s *stage) {
			s.policies()
			for _, n := range []int{1, 2} {
				s.reachAll(t, "node", clusterIP(n), "pod2 remote", masked)
			}
			s.reachAll(t, "node", clusterIP(3), "pod2", masked)
			for _, kind := range outward {
				s.reachAll(t, "node", kind(2), "pod2 remote", masked)
			}
		}},
		{"23 an endpoint that meets itself is masqueraded", func(t *testing.T, s *stage) {
			cluster, local := svc(1, balanced, external), svc(2, balanced, external, externalLocal, internalLocal)
			s.set(cluster, local, s.behind(cluster, on("pod2")...), s.behind(local, on("pod2")...))
			for _, n := range []int{1, 2} {
				for _, to := range everyKind(n) {
					s.reachAll(t, "pod2", to, "pod2", masked)
				}
			}
		}},
		{"24 masqueradeAll", func(t *testing.T, s *stage) {
			s.start(nft.Options{MasqueradeAll: true})
			t.Cleanup(func() { s.start(nft.Options{}) })
			s.policies()
			for _, n := range []int{1, 2} {
				s.reachAll(t, "pod0", clusterIP(n), "pod2 remote", masked)
			}
			s.reachAll(t, "pod0", clusterIP(3), "pod2", masked)
			s.reachAll(t, "stranger", clusterIP(1), "pod2 remote", masked)
			for _, kind := range outward {
				s.reachAll(t, "pod0", kind(1), "pod2 remote", masked)
				s.reachAll(t, "pod0", kind(2), "pod2 remote", kept)
				s.reachAll(t, "stranger", kind(2), "pod2", kept)
			}
		}},
	})
}

// outward are the kinds of address that outsiders use.
var outward = []func(n int) target{nodeAt, externalIP, balancer}

// policies sets Services 1, 2 and 3: policy Cluster throughout, externalTrafficPolicy Local, and
// internalTrafficPolicy Local. Each has an endpoint here, and one elsewhere.
func (s *stage) policies() {
	s.t.Helper()
	cluster, outer, inner := svc(1, balanced, external), svc(2, balanced, external, externalLocal), svc(3, balanced, external, internalLocal)
	ends := on("pod2 remote")
	s.set(cluster, outer, inner, s.behind(cluster, ends...), s.behind(outer, ends...), s.behind(inner, ends...))
}

// reachAll does so by TCP and by UDP.
func (s *stage) reachAll(t *testing.T, from string, to target, servers string, masquerade bool) {
	t.Helper()
	s.reach(t, from, to, servers, masquerade)
	s.reach(t, from, overUDP(to), servers, masquerade)
}
