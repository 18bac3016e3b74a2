package region

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Crossing is the traffic from one zone to another (or to itself) since the fabric was made.
// Bytes are those of whole IP packets, headers included, link-layer headers not.
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

// setupCounters makes one rule and one named counter for each pair of zones, by subnet, where
// packets are forwarded: each packet of the VPC passes there exactly once.
func (f *Fabric) setupCounters() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for i, from := range f.topo.Zones {
		for j, to := range f.topo.Zones {
			name := counterName(i, j)
			conn.AddObj(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
			rule := slices.Concat(
				matchSubnet(12, from.Subnet), matchSubnet(16, to.Subnet),
				[]expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}},
			)
			if i != j {
				rule = append(rule,
					&expr.Immediate{Register: 1, Data: []byte{crossMark, 0, 0, 0}},
					&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	return nil
}

// matchSubnet compares the address at an offset of the IPv4 header (12 source, 16 destination).
func matchSubnet(offset uint32, subnet netip.Prefix) []expr.Any {
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), subnet.Bits()).Masked().Addr().AsSlice()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: subnet.Addr().AsSlice()},
	}
}

// Crossings reads the counters: every pair of zones, in order, also those without traffic.
func (f *Fabric) Crossings() ([]Crossing, error) {
	var out []Crossing
	err := f.Thread.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
		objects, err := conn.GetObjects(table)
		if err != nil {
			return err
		}
		counters := map[string]*expr.Counter{}
		for _, o := range objects {
			if named, ok := o.(*nftables.NamedObj); ok {
				if c, ok := named.Obj.(*expr.Counter); ok {
					counters[named.Name] = c
				}
			}
			if c, ok := o.(*nftables.CounterObj); ok {
				counters[c.Name] = &expr.Counter{Bytes: c.Bytes, Packets: c.Packets}
			}
		}
		for i, from := range f.topo.Zones {
			for j, to := range f.topo.Zones {
				c := counters[counterName(i, j)]
				if c == nil {
					return fmt.Errorf("counter %s is gone", counterName(i, j))
				}
				out = append(out, Crossing{From: from.Name, To: to.Name, Bytes: c.Bytes, Packets: c.Packets})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fabric counters: %w", err)
	}
	return out, nil
}

func counterName(from, to int) string { return fmt.Sprintf("zone-%d-%d", from, to) }
