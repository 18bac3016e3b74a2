package region

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
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
	tableName = "fabric"
	crossMark = 1 // on packets between zones: the latency's filter looks for it
)

// family is how one IP version is counted and checked: its table, the type of its addresses, and where its
// header has the source.
type family struct {
	table   nftables.TableFamily
	address nftables.SetDatatype
	source  uint32
}

func (f *Fabric) families() []family {
	all := []family{{nftables.TableFamilyIPv4, nftables.TypeIPAddr, 12}}
	if f.topo.IPv6 != nil {
		all = append(all, family{nftables.TableFamilyIPv6, nftables.TypeIP6Addr, 8})
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
	for _, v := range f.families() {
		var counters map[string]*expr.Counter
		if err := f.Thread.Do(func() (err error) {
			counters, err = readCounters(v.table)
			return err
		}); err != nil {
			return nil, fmt.Errorf("fabric counters: %w", err)
		}
		zones := len(f.topo.Zones)
		for i := range out {
			name := counterName(i/zones, i%zones)
			c, ok := counters[name]
			if !ok {
				return nil, fmt.Errorf("fabric counters: %s is gone", name)
			}
			out[i].Bytes += c.Bytes
			out[i].Packets += c.Packets
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
