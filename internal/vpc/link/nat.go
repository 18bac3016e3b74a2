package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
)

// The tables are ours alone. That of IPv6 has marks only: nothing of it is translated.
var (
	table  = nft.Table{Family: nft.IPv4, Name: "zonewise-vpc"}
	table6 = nft.Table{Family: nft.IPv6, Name: "zonewise-vpc"}
)

// wanted is what a table is to have; no chains: it is not to be there.
type wanted struct {
	nft.Table
	chains []chain
}

func (h Host) tables() []wanted { return []wanted{{table, h.chains}, {table6, h.chains6}} }

// primaryMark is the bit of packets and of flows which says that a flow goes by the primary interface,
// whoever's address is in its packets. It is upstream's: people look for mark=128 among connections.
const primaryMark = 0x80

// Where our chains are among those of others.
const (
	priorityMark = -150                  // before anything is translated
	priorityLate = nft.PriorityDNAT + 10 // the destination of a Service is that of an endpoint now
	prioritySNAT = nft.PrioritySNAT + 10 // who must be masqueraded for a Service has been
)

// chain is a chain with the rules that belong into it. A rule's comment says all that is in it: by the
// comments alone it is known again.
type chain struct {
	nft.Chain
	rules []nft.Rule
}

// program is the table of IPv4 of a node whose primary interface is the device with the address.
//
// Two kinds of flow go by the primary interface though a pod of another one is at their end: those that
// came in by it for an address that is no pod's, a NodePort for example, since they are known there by that
// address; and those to the outside, which leave with the node's address. Both are marked when they begin,
// and each packet that a pod sends gets the mark of its flow before it is routed.
func program(primary string, address netip.Addr, s vpc.Supply) []chain {
	outside := []nft.Rule{
		rule("others than packets of pods: done", byPod(expr.CmpOpNeq), accept()),
		rule("others than first packets: done", state(expr.CtStateBitNEW, expr.CmpOpEq), accept()),
		rule("not to one host elsewhere: done", addressType(unix.RTN_UNICAST, false, expr.CmpOpNeq), accept()),
	}
	for _, p := range slices.Concat(s.VPC, s.Excluded) {
		if p.Addr().Is4() {
			outside = append(outside, rule("to "+p.Masked().String()+": done", within(p), accept()))
		}
	}
	outside = append(outside, rule("to the outside: by "+primary, markFlow(), markPacket()))
	snat := []nft.Rule{rule(fmt.Sprintf("to the outside: as %s, from random ports", address), packetMarked(), translate(address))}
	if s.ExternalSNAT {
		outside, snat = nil, nil
	}
	return append(marks(primary),
		chain{nft.Chain{Name: "outside", Hook: hook(nft.Filter, nft.Prerouting, priorityLate)}, outside},
		chain{nft.Chain{Name: "snat", Hook: hook(nft.NAT, nft.Postrouting, prioritySNAT)}, snat})
}

// marks are the chains for what came in by the primary interface, the same in both families.
func marks(primary string) []chain {
	return []chain{
		{nft.Chain{Name: "marks", Hook: hook(nft.Filter, nft.Prerouting, priorityMark)}, []nft.Rule{
			rule("who comes by "+primary+" to the node is answered by it",
				by(primary), addressType(unix.RTN_LOCAL, true, expr.CmpOpEq), markFlow()),
			rule("packets of pods have their flow's mark", byPod(expr.CmpOpEq), flowMarked(), markPacket()),
		}},
		{nft.Chain{Name: "services", Hook: hook(nft.Filter, nft.Prerouting, priorityLate)}, []nft.Rule{
			rule("who comes by "+primary+" to a Service is answered by it", by(primary), state(expr.CtStateBitNEW, expr.CmpOpNeq), translated(), markFlow()),
		}},
	}
}

func hook(t nft.Type, p nft.Point, priority int32) *nft.Hook {
	return &nft.Hook{Type: t, Point: p, Priority: priority}
}

// mark makes the table what it should be, in one transaction. Chains that stay are filled anew rather
// than made anew: a packet that is between an old chain and a new one would be seen by neither.
func mark(k Tables, table nft.Table, want []chain) error {
	have, there, err := k.Read(table)
	if err != nil {
		return err
	}
	if len(want) == 0 && !there {
		return nil
	}
	b := nft.NewBatch(table)
	if there && !sameChains(have, want) {
		b.DelTable()
		have = nft.Contents{}
	}
	changed := false
	if len(want) > 0 {
		b.AddTable()
	}
	for _, c := range want {
		comments, there := have.Chains[c.Name]
		if there && slices.Equal(comments, c.comments()) {
			continue
		}
		changed = true
		b.AddChain(c.Chain)
		b.FlushChain(c.Name)
		for _, r := range c.rules {
			b.AddRule(c.Name, r)
		}
	}
	if !changed && len(want) > 0 {
		return nil
	}
	return k.Commit(b)
}

// sameChains tells whether the table has our chains and no others.
func sameChains(have nft.Contents, want []chain) bool {
	for _, c := range want {
		if _, ok := have.Chains[c.Name]; !ok {
			return false
		}
	}
	return len(have.Chains) == len(want)
}

func (c chain) comments() []string {
	var out []string
	for _, r := range c.rules {
		out = append(out, r.Comment)
	}
	return out
}

func rule(comment string, parts ...[]nft.Expr) nft.Rule {
	return nft.Rule{Comment: comment, Exprs: slices.Concat(parts...)}
}

func plain(list ...expr.Any) []nft.Expr {
	out := make([]nft.Expr, len(list))
	for i, x := range list {
		out[i] = nft.Plain(x)
	}
	return out
}

const register = uint32(unix.NFT_REG32_00)

// by is for packets that came in by the device.
func by(device string) []nft.Expr { return in(device+"\x00", expr.CmpOpEq) }

// byPod is for packets that came in by the wire of a pod (CmpOpEq), or not by one.
func byPod(op expr.CmpOp) []nft.Expr { return in(prefix, op) }

// in compares the name of the device; one without a zero byte at its end is the beginning of names.
func in(name string, op expr.CmpOp) []nft.Expr {
	return plain(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}, &expr.Cmp{Op: op, Register: register, Data: []byte(name)})
}

// addressType asks what the destination is to this node, or to the device that the packet came by.
func addressType(kind uint32, ofDevice bool, op expr.CmpOp) []nft.Expr {
	return plain(&expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true, FlagIIF: ofDevice},
		&expr.Cmp{Op: op, Register: register, Data: native(kind)})
}

// within is for packets to an address of the prefix.
func within(p netip.Prefix) []nft.Expr {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return plain(
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: p.Masked().Addr().AsSlice()})
}

// state is for packets of flows in the state (CmpOpNeq), or in another.
func state(bit uint32, op expr.CmpOp) []nft.Expr {
	return append(plain(&expr.Ct{Key: expr.CtKeySTATE, Register: register}), bits(bit, op)...)
}

// translated is for packets of flows whose destination is not the one they were sent to.
func translated() []nft.Expr {
	const destinationTranslated = 1 << 5 // IPS_DST_NAT
	return append(plain(&expr.Ct{Key: expr.CtKeySTATUS, Register: register}), bits(destinationTranslated, expr.CmpOpNeq)...)
}

func flowMarked() []nft.Expr {
	return append(plain(&expr.Ct{Key: expr.CtKeyMARK, Register: register}), bits(primaryMark, expr.CmpOpNeq)...)
}

func packetMarked() []nft.Expr {
	return append(plain(&expr.Meta{Key: expr.MetaKeyMARK, Register: register}), bits(primaryMark, expr.CmpOpNeq)...)
}

// markFlow and markPacket leave the bits of others as they are.
func markFlow() []nft.Expr {
	return plain(&expr.Ct{Key: expr.CtKeyMARK, Register: register}, withMark(),
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: register})
}

func markPacket() []nft.Expr {
	return plain(&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, withMark(),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register})
}

func withMark() *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(^uint32(primaryMark)), Xor: native(primaryMark)}
}

// bits goes on if the register has any of the bits (CmpOpNeq), or none (CmpOpEq).
func bits(mask uint32, op expr.CmpOp) []nft.Expr {
	return plain(
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: op, Register: register, Data: native(0)})
}

func translate(to netip.Addr) []nft.Expr {
	return plain(
		&expr.Immediate{Register: register, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register, FullyRandom: true})
}

func accept() []nft.Expr { return plain(&expr.Verdict{Kind: expr.VerdictAccept}) }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
