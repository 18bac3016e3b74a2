package region

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// Crossing is the traffic from one zone to another (or between nodes of one) since the fabric was made,
// of both IP families. Bytes are those of whole IP packets, headers included, link-layer headers not. Where
// a node hands on many segments as one packet (GSO), that has one header and counts as one; of a packet that
// was cut into fragments each has its own.
type Crossing struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
}

const (
	tableName   = "fabric"
	podsCounter = "pods"
	crossMark   = 1 // on packets between zones: the latency's filter and the count of pods look for it
)

// family is how one IP version counts: its table, the subnets of zones, the addresses of nodes, and where its header
// has the source and the destination address.
type family struct {
	table               nftables.TableFamily
	subnet              func(topology.Zone) netip.Prefix
	node                func(topology.Node) netip.Addr
	key                 nftables.SetDatatype
	source, destination uint32
}

func (f *Fabric) families() []family {
	all := []family{{nftables.TableFamilyIPv4, func(z topology.Zone) netip.Prefix { return z.Subnet },
		func(n topology.Node) netip.Addr { return n.Address }, nftables.TypeIPAddr, 12, 16}}
	if f.topo.IPv6 != nil {
		all = append(all, family{nftables.TableFamilyIPv6, func(z topology.Zone) netip.Prefix { return z.SubnetIPv6 },
			func(n topology.Node) netip.Addr { return n.AddressIPv6 }, nftables.TypeIP6Addr, 8, 24})
	}
	return all
}

// setupCounters makes one rule and one named counter for each pair of zones, by subnet, where
// packets are forwarded: each packet of the VPC passes there exactly once.
func (f *Fabric) setupCounters() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	for _, v := range f.families() {
		table := f.countFamily(conn, v)
		if err := f.countPods(conn, table, v); err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	return nil
}

func (f *Fabric) countFamily(conn *nftables.Conn, v family) *nftables.Table {
	table := conn.AddTable(&nftables.Table{Family: v.table, Name: tableName})
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for i, from := range f.topo.Zones {
		for j, to := range f.topo.Zones {
			name := counterName(i, j)
			conn.AddObj(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
			rule := slices.Concat(
				matchSubnet(v.source, v.subnet(from)), matchSubnet(v.destination, v.subnet(to)),
				[]expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}},
			)
			if i != j {
				rule = append(rule,
					&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, crossMark)},
					&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
	}
	return table
}

// countPods counts what goes between zones and neither from nor to a node's own address: what pods say to each other.
func (f *Fabric) countPods(conn *nftables.Conn, table *nftables.Table, v family) error {
	nodes := &nftables.Set{Table: table, Name: "nodes", KeyType: v.key}
	var addresses []nftables.SetElement
	for _, z := range f.topo.Zones {
		for _, n := range z.Nodes {
			addresses = append(addresses, nftables.SetElement{Key: v.node(n).AsSlice()})
		}
	}
	if err := conn.AddSet(nodes, addresses); err != nil {
		return err
	}
	conn.AddObj(&nftables.NamedObj{Table: table, Name: podsCounter, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	chain := conn.AddChain(&nftables.Chain{
		Name: "pods", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter + 1), // after the mark
	})
	rule := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, crossMark)},
	}
	for _, offset := range []uint32{v.source, v.destination} {
		rule = append(rule,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: v.key.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: nodes.Name, SetID: nodes.ID, Invert: true})
	}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: podsCounter})})
	return nil
}

// matchSubnet compares the address at an offset of the IP header.
func matchSubnet(offset uint32, subnet netip.Prefix) []expr.Any {
	size := subnet.Addr().BitLen() / 8
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: net.CIDRMask(subnet.Bits(), 8*size), Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: subnet.Addr().AsSlice()},
	}
}

// Crossings reads the counters: every pair of zones, in order, also those without traffic. Each is the
// sum over the families.
func (f *Fabric) Crossings() ([]Crossing, error) {
	var out []Crossing
	for _, from := range f.topo.Zones {
		for _, to := range f.topo.Zones {
			out = append(out, Crossing{From: from.Name, To: to.Name})
		}
	}
	counters, err := f.counters()
	zones := len(f.topo.Zones)
	for i := range out {
		c := counters[counterName(i/zones, i%zones)]
		out[i].Bytes, out[i].Packets = c.Bytes, c.Packets
	}
	return out, err
}

// BetweenPods tells how many bytes went between zones from pods to pods: nodes' own traffic, such as what agents report,
// is not in it.
func (f *Fabric) BetweenPods() (uint64, error) {
	counters, err := f.counters()
	return counters[podsCounter].Bytes, err
}

// counters reads all named counters, each the sum over the families.
func (f *Fabric) counters() (map[string]expr.Counter, error) {
	out := map[string]expr.Counter{}
	for _, v := range f.families() {
		var counters map[string]*expr.Counter
		if err := f.Thread.Do(func() (err error) {
			counters, err = readCounters(v.table)
			return err
		}); err != nil {
			return nil, fmt.Errorf("fabric counters: %w", err)
		}
		if want := len(f.topo.Zones)*len(f.topo.Zones) + 1; len(counters) != want {
			return nil, fmt.Errorf("fabric counters: there are %d, not %d", len(counters), want)
		}
		for name, c := range counters {
			out[name] = expr.Counter{Bytes: out[name].Bytes + c.Bytes, Packets: out[name].Packets + c.Packets}
		}
	}
	return out, nil
}

// readCounters reads all named counters of a family's table, in the calling thread's namespace.
func readCounters(v nftables.TableFamily) (map[string]*expr.Counter, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	objects, err := conn.GetObjects(&nftables.Table{Family: v, Name: tableName})
	if err != nil {
		return nil, err
	}
	counters := map[string]*expr.Counter{}
	for _, o := range objects {
		// The library reads counters as either of two types.
		switch o := o.(type) {
		case *nftables.NamedObj:
			if c, ok := o.Obj.(*expr.Counter); ok {
				counters[o.Name] = c
			}
		case *nftables.CounterObj:
			counters[o.Name] = &expr.Counter{Bytes: o.Bytes, Packets: o.Packets}
		}
	}
	return counters, nil
}

func counterName(from, to int) string { return fmt.Sprintf("zone-%d-%d", from, to) }
