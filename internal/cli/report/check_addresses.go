package report

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
)

// soon is how long before a subnet has no address left it is time to do something: a new subnet is a matter of days
// where others must agree.
const soon = 7 * 24 * time.Hour

// ofAddresses finds what the daemons that get addresses for pods say of their nodes, and of the subnets that they share.
func ofAddresses(a Answers, add func(string, Finding)) {
	for node, why := range a.NoAddresses {
		add(node, Finding{What: "The daemon of zonewise-cni does not answer: " + why + ".",
			Mend: "Pods keep their addresses, and others start as long as there are free ones. See the pod: kubectl describe, kubectl logs."})
	}
	subnets := map[string]view.AddressSubnet{}
	for _, v := range a.Addresses {
		for _, text := range v.Warnings {
			add(v.Name, Finding{What: sentence(text), Mend: "`zonewise node NAME` shows what the node has."})
		}
		if v.Failure != "" {
			add(v.Name, Finding{What: "Asking the cloud for addresses fails: " + strings.TrimSuffix(v.Failure, ".") + ".", Mend: "It is tried again and again. Perhaps: " + v.Next.Mend + "."})
		}
		if v.Next.Waiting > 0 {
			add(v.Name, Finding{What: waiting(v.Next.Waiting) + " for an address: " + v.Next.Limit + ".", Mend: "Perhaps: " + v.Next.Mend + "."})
		}
		for _, s := range v.Subnets {
			if old, known := subnets[s.ID]; !known || earlier(s, old) {
				subnets[s.ID] = s
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(subnets)) {
		ofSubnet(subnets[id], a.Now, add)
	}
}

// earlier tells whether one node's view of a subnet is worse than another's.
func earlier(a, b view.AddressSubnet) bool {
	switch {
	case a.Free == 0 || b.Free == 0:
		return b.Free != 0
	case a.Empty.IsZero() || b.Empty.IsZero():
		return b.Empty.IsZero() && !a.Empty.IsZero()
	}
	return a.Empty.Before(b.Empty)
}

func ofSubnet(s view.AddressSubnet, now time.Time, add func(string, Finding)) {
	const mend = "Give pods another subnet: tag one of the same zone with kubernetes.io/role/cni=1, or use custom networking with a second CIDR. " +
		"Fewer addresses are kept warm with WARM_IP_TARGET and MINIMUM_IP_TARGET."
	switch {
	case s.Free == 0:
		add("", Finding{Kind: "Subnet", Name: s.ID, What: fmt.Sprintf("No address of %s is free.", s.CIDR), Mend: mend})
	case s.Free > 0 && !s.Empty.IsZero() && s.Empty.Sub(now) < soon:
		add("", Finding{Kind: "Subnet", Name: s.ID, What: fmt.Sprintf("%d of the addresses of %s are free, %.1f fewer each hour: none in %s.",
			s.Free, s.CIDR, s.PerHour, span(s.Empty.Sub(now))), Mend: mend})
	case few(s):
		add("", Finding{Kind: "Subnet", Name: s.ID, What: fmt.Sprintf("Only %s free.", ofAll(s)), Mend: mend})
	}
}

// fewParts is how small a part of a subnet is few: one of so many.
const fewParts = 10

// few tells whether a subnet is nearly full, however slowly it got there.
func few(s view.AddressSubnet) bool { return s.Free >= 0 && s.Free*fewParts < subnetSize(s) }

// subnetSize is how many addresses of a subnet can be had: the cloud keeps five.
func subnetSize(s view.AddressSubnet) int {
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil || !p.Addr().Is4() {
		return 0
	}
	return 1<<(32-p.Bits()) - 5
}

func ofAll(s view.AddressSubnet) string {
	are := "are"
	if s.Free == 1 {
		are = "is"
	}
	return fmt.Sprintf("%d of the %d addresses of %s %s", s.Free, subnetSize(s), s.CIDR, are)
}
