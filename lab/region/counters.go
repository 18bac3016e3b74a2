package region

import (
	"encoding/binary"
	"fmt"
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

// family is how one IP version is counted and checked: its table, the type of its addresses, those of nodes, and
// where its header has the source and the destination.
type family struct {
	table               nftables.TableFamily
	address             nftables.SetDatatype
	node                func(topology.Node) netip.Addr
	source, destination uint32
}

func (f *Fabric) families() []family {
	all := []family{{nftables.TableFamilyIPv4, nftables.TypeIPAddr, func(n topology.Node) netip.Addr { return n.Address }, 12, 16}}
	if f.topo.IPv6 != nil {
		all = append(all, family{nftables.TableFamilyIPv6, nftables.TypeIP6Addr, func(n topology.Node) netip.Addr { return n.AddressIPv6 }, 8, 24})
	}
	return all
}

// setupRules makes what every packet of the VPC passes: the check of its source where it comes in, and
// its counter where it is forwarded.
func (f *Fabric) setupRules() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	for _, v := range f.families() {
		table := conn.AddTable(&nftables.Table{Family: v.table, Name: tableName})
		if err := checkSources(conn, table, v); err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		f.countZones(conn, table)
		if err := f.countPods(conn, table, v); err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	return nil
}

// zoneGroup is the number that the links of a zone's nodes bear. All other links are in group 0.
func zoneGroup(zone int) uint32 { return uint32(zone) + 1 }

// countZones makes one rule and one named counter for each pair of zones, by the link a packet came by
// and the one it leaves by: whatever subnet its addresses are of, each packet of the VPC is forwarded
// exactly once.
func (f *Fabric) countZones(conn *nftables.Conn, table *nftables.Table) {
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for i := range f.topo.Zones {
		for j := range f.topo.Zones {
			name := counterName(i, j)
			conn.AddObj(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
			rule := slices.Concat(
				matchGroup(expr.MetaKeyIIFGROUP, i), matchGroup(expr.MetaKeyOIFGROUP, j),
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
}

// countPods counts what goes between zones and neither from nor to a node's own address: what pods say to each other.
func (f *Fabric) countPods(conn *nftables.Conn, table *nftables.Table, v family) error {
	nodes := &nftables.Set{Table: table, Name: "nodes", KeyType: v.address}
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
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: v.address.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: nodes.Name, SetID: nodes.ID, Invert: true})
	}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: podsCounter})})
	return nil
}

func matchGroup(key expr.MetaKey, zone int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, zoneGroup(zone))},
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
