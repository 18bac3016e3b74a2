package upstream_test

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodeutil "k8s.io/kubernetes/pkg/util/node"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/reflect"
)

// Node ports answer at the addresses that kube-proxy takes for the node's own.
func TestPrimaryAddressesAreUpstreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.Custom(func(t *rapid.T) v1.NodeAddress {
			return v1.NodeAddress{
				Type:    rapid.SampledFrom([]v1.NodeAddressType{v1.NodeInternalIP, v1.NodeExternalIP, v1.NodeHostName}).Draw(t, "type"),
				Address: rapid.SampledFrom([]string{"192.168.1.10", "192.168.001.011", "203.0.113.1", "fd00::10", "2001:db8::1", "n1", ""}).Draw(t, "address"),
			}
		})
		n := &v1.Node{Status: v1.NodeStatus{Addresses: rapid.SliceOfN(address, 0, 5).Draw(t, "addresses")}}
		theirs, err := nodeutil.GetNodeHostIPs(n)
		want := map[bool]netip.Addr{}
		for _, ip := range theirs {
			a, _ := netip.AddrFromSlice(ip)
			want[a.Unmap().Is6()] = a.Unmap()
		}
		ours, _ := reflect.Node(n)
		for _, v6 := range []bool{false, true} {
			if got := ours.Primary(v6); got != want[v6] {
				t.Fatalf("v6 %v: %v, upstream %v (%v)", v6, got, want[v6], err)
			}
		}
	})
}
