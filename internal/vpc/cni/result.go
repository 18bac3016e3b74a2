package cni

import (
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// result tells the runtime what the pod has: the host's end first, then its own with the address.
func result(w link.Wiring, l vpc.Lease, sandbox string) *types100.Result {
	gateway := net.IP(link.Gateway.AsSlice())
	everything := net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	return &types100.Result{
		Interfaces: []*types100.Interface{
			{Name: w.Host.Name, Mac: w.Host.MAC.String(), Mtu: w.Host.MTU},
			{Name: w.Pod.Name, Mac: w.Pod.MAC.String(), Mtu: w.Pod.MTU, Sandbox: sandbox},
		},
		IPs: []*types100.IPConfig{{
			Interface: types100.Int(1),
			Address:   net.IPNet{IP: l.Address.AsSlice(), Mask: net.CIDRMask(32, 32)},
			Gateway:   gateway,
		}},
		Routes: []*types.Route{{Dst: everything, GW: gateway}},
	}
}

func (p plugin) print(r *types100.Result, version string) error {
	as, err := r.GetAsVersion(version)
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return as.PrintTo(p.out)
}
