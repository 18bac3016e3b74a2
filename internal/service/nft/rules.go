package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// layout is the program of the table. podInterface is the prefix that names of interfaces to
// this node's pods have.
type layout struct {
	podInterface string
}

// Keys of several fields lie in consecutive registers of four bytes, from key on.
const (
	key     = uint32(unix.NFT_REG32_00)
	slot    = key + 3 // the last field of a backend's key, and where its value goes
	scratch = uint32(unix.NFT_REG32_15)
)

// draw picks one of n slots and translates the destination. The second rule is for a packet that
// saw the table change between its two look-ups and drew a slot that has just gone: the first is
// there as long as there is any.
func (l layout) draw(n int, first uint32) []nft.Rule {
	of := func(n int) []nft.Expr {
		return plain(
			&expr.Numgen{Register: slot, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM, Offset: first},
			&expr.Lookup{SourceRegister: key, DestRegister: slot, IsDestRegSet: true, SetName: backends.Name},
			&expr.NAT{
				Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
				RegAddrMin: slot, RegProtoMin: slot + 1, Specified: true,
			})
	}
	return []nft.Rule{
		rule(fmt.Sprintf("one of %d", n), destination(), of(n)),
		rule("the first", destination(), of(1)),
	}
}

// toss goes on to a draw if the frontend wins: if the number that comes is one of its own.
func (l layout) toss(i int, first uint32, to nft.Verdict) nft.Rule {
	of := uint32(1) << (tossBits * (i + 1))
	return rule(fmt.Sprintf("toss 1 of %d from 0x%08x", of, first), destination(),
		plain(&expr.Numgen{Register: slot, Modulus: of, Type: unix.NFT_NG_RANDOM, Offset: first}),
		found(weights), verdict(string(to)))
}

func (l layout) chooseService() nft.Rule {
	return rule("services", destination(), decide(services))
}

func (l layout) chooseInside() nft.Rule {
	return rule("services, from inside", destination(), decide(inside))
}

// markOffCluster: who comes from elsewhere than a pod of ours must get the answer from us.
func (l layout) markOffCluster() nft.Rule {
	return rule("cluster IPs are masqueraded unless from "+l.podInterface+"*",
		l.fromPod(expr.CmpOpNeq), address(16, key), found(clusterIPs), setMark())
}

func (l layout) mark() nft.Rule { return rule("masquerade", setMark()) }

func (l layout) podsInside() nft.Rule {
	return rule("pods of "+l.podInterface+"* are inside", l.fromPod(expr.CmpOpEq), verdict(insideChain))
}

// A packet that came in through no interface was sent by the node itself.
func (l layout) markOwn() nft.Rule {
	return rule("masquerade the node's own", fromSelf(), setMark())
}

func (l layout) ownInside() nft.Rule {
	return rule("the node itself is inside", fromSelf(), verdict(insideChain))
}

func (l layout) goTo(v nft.Verdict) nft.Rule { return rule("go on", verdict(string(v))) }

func (l layout) goServices() nft.Rule { return rule("services", verdict(servicesChain)) }

func (l layout) goFirst() nft.Rule {
	return rule("first packets", stateNew(), verdict(firstChain))
}

// countOpened counts a flow's very first packet: a flow is confirmed when one has got through. The
// translation itself cannot count: nft does not know keys of which a part comes out of a map,
// and aborts when it has to show one.
func (l layout) countOpened() nft.Rule {
	return rule("connections", translated(), unconfirmed(), pair(), count(connections))
}

func (l layout) refuseFrontend() nft.Rule {
	return rule("frontends without backends", destination(), decide(unreachable))
}

func (l layout) refuseUndefined() nft.Rule {
	return rule("undefined ports of cluster IPs", address(16, key), found(clusterIPs), verdict(rejectChain))
}

func (l layout) reset() nft.Rule {
	return rule("reset TCP", plain(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}))
}

func (l layout) portUnreachable() nft.Rule {
	const code = 3 // ICMP: port unreachable
	return rule("port unreachable", plain(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}))
}

func (l layout) masqueradeMarked() nft.Rule {
	return rule("masquerade what is marked", marked(), flipMark(), masquerade())
}

func (l layout) masqueradeHairpin() nft.Rule {
	return rule("masquerade who reaches itself", translated(),
		address(12, key), address(16, key+1), found(hairpin), masquerade())
}

func (l layout) countTraffic() nft.Rule { return rule("traffic", translated(), pair(), count(traffic)) }

// countArriving leaves out loopback: what comes from there was counted as it left.
func (l layout) countArriving() nft.Rule {
	return rule("traffic", from("lo\x00", expr.CmpOpNeq), translated(), pair(), count(traffic))
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

// destination loads address . protocol . port of the packet.
func destination() []nft.Expr {
	return slices.Concat(address(16, key), plain(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key + 1},
		&expr.Payload{DestRegister: key + 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}))
}

// pair loads the key of a pair from the flow: where it was sent first, and who answers.
func pair() []nft.Expr {
	return []nft.Expr{
		nft.Tuple{Field: nft.Destination, Register: key},
		nft.Plain(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key + 1}),
		nft.Tuple{Field: nft.DestinationPort, Register: key + 2},
		nft.Tuple{Field: nft.Source, Reply: true, Register: key + 3},
		nft.Tuple{Field: nft.SourcePort, Reply: true, Register: key + 4},
	}
}

// address loads an address of the packet: the source is at 12, the destination at 16.
func address(offset, register uint32) []nft.Expr {
	return plain(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4})
}

func found(s nft.Set) []nft.Expr { return plain(&expr.Lookup{SourceRegister: key, SetName: s.Name}) }

func decide(s nft.Set) []nft.Expr {
	return plain(&expr.Lookup{SourceRegister: key, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.Name})
}

func count(s nft.Set) []nft.Expr {
	return plain(&expr.Dynset{
		SrcRegKey: key, SetName: s.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&expr.Counter{}},
	})
}

func verdict(chain string) []nft.Expr {
	return plain(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func masquerade() []nft.Expr { return plain(&expr.Masq{FullyRandom: true}) }

func (l layout) fromPod(op expr.CmpOp) []nft.Expr { return from(l.podInterface, op) }

// from compares the name of the interface that the packet came by; one without a zero byte at its
// end is a prefix.
func from(name string, op expr.CmpOp) []nft.Expr {
	return plain(
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: key},
		&expr.Cmp{Op: op, Register: key, Data: []byte(name)})
}

func fromSelf() []nft.Expr {
	return plain(
		&expr.Meta{Key: expr.MetaKeyIIF, Register: scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: native(0)})
}

func stateNew() []nft.Expr {
	return append(plain(&expr.Ct{Key: expr.CtKeySTATE, Register: scratch}), bits(expr.CtStateBitNEW, expr.CmpOpNeq)...)
}

// translated is for packets of flows whose destination is not the one they were sent to.
func translated() []nft.Expr {
	const destinationTranslated = 1 << 5 // IPS_DST_NAT
	return append(plain(&expr.Ct{Key: expr.CtKeySTATUS, Register: scratch}), bits(destinationTranslated, expr.CmpOpNeq)...)
}

func unconfirmed() []nft.Expr {
	const confirmed = 1 << 3 // IPS_CONFIRMED
	return append(plain(&expr.Ct{Key: expr.CtKeySTATUS, Register: scratch}), bits(confirmed, expr.CmpOpEq)...)
}

func marked() []nft.Expr {
	return append(plain(&expr.Meta{Key: expr.MetaKeyMARK, Register: scratch}), bits(masqueradeMark, expr.CmpOpNeq)...)
}

func setMark() []nft.Expr { return changeMark(^uint32(masqueradeMark)) }

func flipMark() []nft.Expr { return changeMark(^uint32(0)) }

// changeMark keeps the mark's bits of the mask and then inverts the masquerade bit.
func changeMark(mask uint32) []nft.Expr {
	return plain(
		&expr.Meta{Key: expr.MetaKeyMARK, Register: scratch},
		&expr.Bitwise{
			SourceRegister: scratch, DestRegister: scratch, Len: 4, Mask: native(mask), Xor: native(masqueradeMark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: scratch})
}

// bits goes on if the scratch register has any of the bits (CmpOpNeq), or none (CmpOpEq).
func bits(mask uint32, op expr.CmpOp) []nft.Expr {
	return plain(
		&expr.Bitwise{SourceRegister: scratch, DestRegister: scratch, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: op, Register: scratch, Data: native(0)})
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
