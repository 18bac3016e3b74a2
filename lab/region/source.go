package region

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Dropped is what a node sent by an interface that does not own the source address. Where a node's policy
// routing is wrong, it shows here.
type Dropped struct {
	Node      string `json:"node"`      // alias
	Interface string `json:"interface"` // as the node calls it
	Source    string `json:"source"`
	Bytes     uint64 `json:"bytes"`
	Packets   uint64 `json:"packets"`
}

const (
	trustedSet = "trusted"
	droppedSet = "dropped"

	// Of the sources that are remembered. What more there are is dropped all the same.
	maxDropped = 4096
)

// checkSources drops what comes by an interface from an address that the fabric would not deliver by the
// same one, as the cloud's source check does. The routes are the list of who owns what; there is no other.
func checkSources(conn *nftables.Conn, table *nftables.Table, v family) error {
	trusted := &nftables.Set{Table: table, Name: trustedSet, KeyType: nftables.TypeIFName}
	dropped := &nftables.Set{
		Table: table, Name: droppedSet, KeyType: nftables.MustConcatSetType(nftables.TypeIFName, v.address),
		Concatenation: true, Dynamic: true, Counter: true, Size: maxDropped,
	}
	for _, s := range []*nftables.Set{trusted, dropped} {
		if err := conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	chain := conn.AddChain(&nftables.Chain{
		Name: "source", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	size := v.address.Bytes
	source := func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: v.source, Len: size}
	}
	// To whom the route back to the source leads: 0 is to somebody else.
	foreign := []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
	rules := [][]expr.Any{
		{ // not from a node
			&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, 0)}, accept,
		},
		{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: trustedSet}, accept,
		},
		slices.Concat(foreign, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, source(2), // the second register begins where the name ends
			&expr.Dynset{SrcRegKey: 1, SetName: droppedSet, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE)},
		}),
		append(foreign, drop),
	}
	if v.table == nftables.TableFamilyIPv6 {
		// Neighbours and routers are asked for from link-local addresses, or from none.
		local := []expr.Any{source(1), &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: append([]byte{0xff, 0xc0}, make([]byte, 14)...), Xor: make([]byte, size)}}
		for _, prefix := range []string{"fe80::", "::"} {
			rules = slices.Insert(rules, 1, slices.Concat(local, []expr.Any{
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: netip.MustParseAddr(prefix).AsSlice()}, accept,
			}))
		}
	}
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
	}
	return nil
}

// trust excepts from the check those interfaces for which it was switched off.
func (f *Fabric) trust() error {
	var elements []nftables.SetElement
	for _, p := range f.places {
		for _, a := range f.attachments(p) {
			if !a.SourceCheck {
				elements = append(elements, nftables.SetElement{Key: append([]byte(a.name), make([]byte, unix.IFNAMSIZ-len(a.name))...)})
			}
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	for _, v := range f.families() {
		set := &nftables.Set{Table: &nftables.Table{Family: v.table, Name: tableName}, Name: trustedSet, KeyType: nftables.TypeIFName}
		conn.FlushSet(set)
		if err := conn.SetAddElements(set, elements); err != nil {
			return fmt.Errorf("source check: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("source check: %w", err)
	}
	return nil
}

// Dropped reads what the source check has dropped since the fabric was made, sorted.
func (f *Fabric) Dropped() ([]Dropped, error) {
	out := []Dropped{}
	for _, v := range f.families() {
		if err := f.Thread.Do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			elements, err := conn.GetSetElements(&nftables.Set{
				Table: &nftables.Table{Family: v.table, Name: tableName}, Name: droppedSet,
				KeyType: nftables.MustConcatSetType(nftables.TypeIFName, v.address), Concatenation: true,
			})
			for _, e := range elements {
				if len(e.Key) < unix.IFNAMSIZ+int(v.address.Bytes) || e.Counter == nil {
					continue
				}
				d := Dropped{Bytes: e.Counter.Bytes, Packets: e.Counter.Packets}
				d.Node, d.Interface = splitName(strings.TrimRight(string(e.Key[:unix.IFNAMSIZ]), "\x00"))
				source, _ := netip.AddrFromSlice(e.Key[unix.IFNAMSIZ : unix.IFNAMSIZ+int(v.address.Bytes)])
				d.Source = source.String()
				out = append(out, d)
			}
			return err
		}); err != nil {
			return nil, fmt.Errorf("dropped by the source check: %w", err)
		}
	}
	slices.SortFunc(out, func(a, b Dropped) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Source, b.Source))
	})
	return out, nil
}
