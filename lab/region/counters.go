package region

import (
	"encoding/binary"
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
					&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, crossMark)},
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
	var counters map[string]*expr.Counter
	if err := f.Thread.Do(func() (err error) {
		counters, err = readCounters()
		return err
	}); err != nil {
		return nil, fmt.Errorf("fabric counters: %w", err)
	}
	var out []Crossing
	for i, from := range f.topo.Zones {
		for j, to := range f.topo.Zones {
			c, ok := counters[counterName(i, j)]
			if !ok {
				return nil, fmt.Errorf("fabric counters: %s is gone", counterName(i, j))
			}
			out = append(out, Crossing{From: from.Name, To: to.Name, Bytes: c.Bytes, Packets: c.Packets})
		}
	}
	return out, nil
}

// readCounters reads all named counters of the fabric's table, in the calling thread's namespace.
func readCounters() (map[string]*expr.Counter, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	objects, err := conn.GetObjects(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
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
