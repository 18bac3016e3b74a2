package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/region/imds"
)

// metadataAddress is where every instance of the cloud finds its own description.
var metadataAddress = netip.MustParseAddr("169.254.169.254")

// serveMetadata gives a node its instance's metadata, at the address that every instance has it, until the
// node ends: an open socket would keep the node's network alive.
func (l *Lab) serveMetadata(instance string, m *machine.Machine) error {
	if l.cloud == nil {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.PID()))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	var listener net.Listener
	if err := region.In(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: metadataAddress.AsSlice(), Mask: net.CIDRMask(32, 32)}, Scope: unix.RT_SCOPE_LINK}
		if err := netlink.AddrReplace(lo, address); err != nil {
			return err
		}
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(metadataAddress, 80).String())
		return err
	}); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-m.Done()
		cancel()
	}()
	serve(ctx, l.cloud.unlessAway(imds.New(l.cloud.records, instance, l.topo.Cloud.MetadataLag)), listener)
	return nil
}

// unlessAway answers as long as the metadata service is there.
func (c *cloud) unlessAway(service http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.noMetadata.Load() {
			panic(http.ErrAbortHandler) // net/http's way to close a connection without an answer
		}
		service.ServeHTTP(w, r)
	})
}
