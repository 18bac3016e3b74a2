package vpccni_test

import (
	"net"
	"net/netip"
	"time"

	"github.com/aws/amazon-vpc-cni-k8s/pkg/ipamd/datastore"
	"github.com/aws/amazon-vpc-cni-k8s/pkg/utils/logger"

	"github.com/zonewise/zonewise/internal/vpc"
)

const (
	poolInterval     = 5 * time.Second  // between two looks of ipamd at its pool
	decreaseInterval = 30 * time.Second // between two of its decreases
	prefixSize       = 16
)

// quiet is made before any bubble of fake time.
var quiet = logger.New(&logger.Configuration{LogLevel: "fatal", LogLocation: "stderr"})

// ipamd is upstream's: its store of addresses as it is, and around it the rules by which its pool
// manager, which cannot be run without a node, asks the cloud.
type ipamd struct {
	*node
	store    *datastore.DataStore
	looked   time.Time
	decrease time.Time
}

func newIpamd(n *node) *ipamd {
	i := &ipamd{node: n, store: datastore.NewDataStore(quiet, datastore.NullCheckpoint{}, n.targets.Prefixes, 0)}
	i.learn()
	return i
}

func (i *ipamd) assign(k vpc.Key) bool {
	_, _, _, err := i.store.AssignPodIPv4Address(upstreamKey(k), datastore.IPAMMetadata{})
	return err == nil
}

func (i *ipamd) release(k vpc.Key) {
	_, _, _, _, _, _ = i.store.UnassignPodIPAddress(upstreamKey(k)) // one that waits is not known
}

func upstreamKey(k vpc.Key) datastore.IPAMKey {
	return datastore.IPAMKey{NetworkName: "aws-cni", ContainerID: k.Container, IfName: k.Interface}
}

// learn puts into the store what the cloud has.
func (i *ipamd) learn() {
	known := i.store.GetENIInfos().ENIs
	for _, e := range i.cloud.Interfaces() {
		if _, ok := known[e.ID]; !ok {
			must(i.store.AddENI(e.ID, e.Index, e.Primary, false, false, e.Table, e.SubnetID))
		}
		for _, a := range e.Addresses {
			i.add(known[e.ID], e.ID, netip.PrefixFrom(a, 32))
		}
		for _, p := range e.Prefixes {
			i.add(known[e.ID], e.ID, p)
		}
	}
}

func (i *ipamd) add(known datastore.ENI, id string, p netip.Prefix) {
	cidr := net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
	if _, ok := known.AvailableIPv4Cidrs[cidr.String()]; !ok {
		must(i.store.AddIPv4CidrToStore(id, cidr, p.Bits() < 32))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// tick is a round of the pool manager, when it is time.
func (i *ipamd) tick() {
	if time.Since(i.looked) < poolInterval {
		return
	}
	i.looked = time.Now()
	stats := i.store.GetIPStats("4")
	short, over, byIP := i.byTarget(stats)
	switch {
	case i.low(stats, short, byIP):
		i.increase(short, byIP)
	case time.Since(i.decrease) > decreaseInterval && i.high(over, byIP) > 0:
		i.decrease = time.Now()
		i.unassign(i.high(over, byIP))
	}
	if i.mayRemove(stats, byIP) {
		if id := i.store.RemoveUnusedENIFromStore(i.targets.WarmIP, i.targets.MinimumIP, i.targets.WarmPrefix); id != "" {
			i.do(vpc.Action{Verb: vpc.DeleteInterface, Interface: id})
		}
	}
}

// byTarget is WARM_IP_TARGET and MINIMUM_IP_TARGET: in addresses, or in prefixes where there are prefixes.
func (i *ipamd) byTarget(s *datastore.DataStoreStats) (short, over int, set bool) {
	warm, minimum := i.targets.WarmIP, i.targets.MinimumIP
	if warm == 0 && minimum == 0 {
		return 0, 0, false
	}
	free := s.AvailableAddresses()
	short = max(warm-free, minimum-s.TotalIPs, 0)
	if !i.targets.Prefixes {
		return short, max(min(free-warm, s.TotalIPs-minimum), 0), true
	}
	over = min(i.store.GetFreePrefixes(), s.TotalPrefixes-ceil(s.AssignedIPs+warm), s.TotalPrefixes-ceil(minimum))
	return ceil(short), max(over, 0), true
}

func ceil(addresses int) int { return (addresses + prefixSize - 1) / prefixSize }

func (i *ipamd) low(s *datastore.DataStoreStats, short int, byIP bool) bool {
	if s.TotalIPs >= i.maxPods {
		return false
	}
	if byIP {
		return short > 0
	}
	warm := i.targets.WarmENI * i.limits.Slots()
	if i.targets.Prefixes {
		warm = i.targets.WarmPrefix * prefixSize
	}
	free := s.AvailableAddresses()
	return free < warm || warm == 0 && free == 0
}

func (i *ipamd) high(over int, byIP bool) int {
	if !byIP && i.targets.Prefixes {
		return i.store.GetFreePrefixes() - i.targets.WarmPrefix
	}
	return over
}

func (i *ipamd) increase(short int, byIP bool) {
	want := i.limits.Slots()
	verb := vpc.AssignAddresses
	if byIP {
		want = short
	}
	if i.targets.Prefixes {
		verb = vpc.AssignPrefixes
		if want = max(short, 1); !byIP {
			want = max(i.targets.WarmPrefix-i.store.GetFreePrefixes(), 1)
		}
	}
	for _, e := range i.store.GetAllocatableENIs(i.limits.Slots(), i.targets.CustomNetworking) {
		if open := i.limits.Slots() - len(e.AvailableIPv4Cidrs); open > 0 {
			i.do(vpc.Action{Verb: verb, Interface: e.ID, Count: min(open, want)})
			i.learn()
			return
		}
	}
	if have := i.cloud.Interfaces(); len(have) < i.limits.Interfaces && want > 0 {
		free := 1
		for taken := true; taken; {
			taken = false
			for _, e := range have {
				if e.Index == free {
					taken = true
					free++
				}
			}
		}
		i.do(vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: free, Count: min(want, i.limits.Slots()), OfPrefixes: i.targets.Prefixes})
		i.learn()
	}
}

// unassign gives back so many addresses or prefixes.
func (i *ipamd) unassign(over int) {
	for id := range i.store.GetENIInfos().ENIs {
		a := vpc.Action{Verb: vpc.UnassignAddresses, Interface: id}
		for _, c := range i.store.FindFreeableCidrs(id) {
			if over == 0 {
				break
			}
			if i.store.DelIPv4CidrFromStore(id, c.Cidr, false) != nil {
				continue
			}
			over--
			ip, _ := netip.AddrFromSlice(c.Cidr.IP.To4())
			if c.IsPrefix {
				a.Verb = vpc.UnassignPrefixes
				a.Prefixes = append(a.Prefixes, netip.PrefixFrom(ip, 28))
			} else {
				a.Addresses = append(a.Addresses, ip)
			}
		}
		if len(a.Addresses)+len(a.Prefixes) > 0 {
			i.do(a)
		}
	}
}

func (i *ipamd) mayRemove(s *datastore.DataStoreStats, byIP bool) bool {
	if byIP {
		return true
	}
	if i.targets.Prefixes {
		return s.AvailableAddresses() >= (i.targets.WarmPrefix+1)*i.limits.Slots()*prefixSize || i.store.CheckFreeableENIexists()
	}
	return s.AvailableAddresses() >= (i.targets.WarmENI+1)*i.limits.Slots()
}
