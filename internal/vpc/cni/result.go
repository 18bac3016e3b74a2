package cni

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// result tells the runtime what the pod has: the host's end first, then its own with the addresses.
func result(w link.Wiring, l vpc.Lease, sandbox string) *types100.Result {
	r := &types100.Result{
		Interfaces: []*types100.Interface{
			{Name: w.Host.Name, Mac: w.Host.MAC.String(), Mtu: w.Host.MTU},
			{Name: w.Pod.Name, Mac: w.Pod.MAC.String(), Mtu: w.Pod.MTU, Sandbox: sandbox},
		},
	}
	addAddress(r, l.Address)
	if l.IPv6.IsValid() {
		addAddress(r, l.IPv6)
	}
	return r
}

func addAddress(r *types100.Result, a netip.Addr) {
	bits, gateway := a.BitLen(), link.GatewayOf(a)
	r.IPs = append(r.IPs, &types100.IPConfig{
		Interface: types100.Int(1),
		Address:   net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, bits)},
		Gateway:   gateway.AsSlice(),
	})
	everything := net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
	r.Routes = append(r.Routes, &types.Route{Dst: everything, GW: gateway.AsSlice()})
}

func (p plugin) print(r *types100.Result, version string) error {
	as, err := r.GetAsVersion(version)
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return as.PrintTo(p.out)
}
