package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// Keys of several fields lie in consecutive registers of four bytes, from key on.
const (
	key     = uint32(unix.NFT_REG32_00)
	scratch = uint32(unix.NFT_REG32_15)
)

// width is how many registers an address takes, and its length in bytes.
func (l layout) width() (registers, length uint32) {
	length = uint32(nft.Addr.Width(l.family))
	return length / 4, length
}

// slot is the register of a backend key's last field, and where its value goes.
func (l layout) slot() uint32 {
	w, _ := l.width()
	return key + w + 2
}

// draw picks one of n slots and translates the destination. The second rule is for a packet that
// saw the table change between its two look-ups and drew a slot that has just gone: the first is
// there as long as there is any.
func (l layout) draw(n int, first uint32) []nft.Rule {
	w, _ := l.width()
	slot := l.slot()
	of := func(n int) []nft.Expr {
		return plain(
			&expr.Numgen{Register: slot, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM, Offset: first},
			&expr.Lookup{SourceRegister: key, DestRegister: slot, IsDestRegSet: true, SetName: sets[backends].Name},
			l.translate(slot, slot+w))
	}
	return []nft.Rule{
		rule(fmt.Sprintf("one of %d", n), l.destination(key), of(n)),
		rule("the first", l.destination(key), of(1)),
	}
}

// toss goes on to a draw if the frontend wins: if the number that comes is one of its own.
func (l layout) toss(i int, first uint32, to nft.Verdict) nft.Rule {
	of := uint32(1) << (tossBits * (i + 1))
	return rule(fmt.Sprintf("toss 1 of %d from 0x%08x", of, first), l.destination(key),
		plain(&expr.Numgen{Register: l.slot(), Modulus: of, Type: unix.NFT_NG_RANDOM, Offset: first}),
		found(weights, key), verdict(string(to)))
}

func (l layout) chooseService() nft.Rule {
	return rule("services, by number", loadMark(), l.destination(key), decide(services, ways))
}

func (l layout) chooseInside() nft.Rule {
	return rule("services from inside, by number", loadMark(), l.destination(key), decide(inside, waysInside))
}

// markOffCluster: who comes from elsewhere than a pod of ours must get the answer from us.
func (l layout) markOffCluster() nft.Rule {
	if l.masqueradeAll {
		return rule("cluster IPs are masqueraded", setMark())
	}
	return rule("cluster IPs are masqueraded unless from "+l.podInterface+"*",
		l.fromPod(expr.CmpOpNeq), setMark())
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
	return rule("connections", unconfirmed(), l.pair(), count(connections))
}

// goOpened is for flows that were translated, and so to an address that is no frontend.
func (l layout) goOpened() nft.Rule { return rule("translated", translated(), verdict(openedChain)) }

// passEstablished ends the way through this chain alone.
func (l layout) passEstablished() nft.Rule {
	return rule("under way", state(expr.CtStateBitESTABLISHED), plain(&expr.Verdict{Kind: expr.VerdictAccept}))
}

func (l layout) refuseFrontend() nft.Rule {
	return rule("frontends without backends, by number", loadMark(), l.destination(key), decide(unreachable, outcomes))
}

// dropInvalidFrom: what conntrack makes no sense of it does not translate back either. The one who
// gets it, which is the node itself where it had masqueraded, knows nobody at that address and
// resets the connection.
func (l layout) dropInvalidFrom() nft.Rule {
	return rule("of no flow, from a pod", state(expr.CtStateBitINVALID), l.fromPod(expr.CmpOpEq), drop())
}

func (l layout) dropInvalidTo() nft.Rule {
	return rule("of no flow, to a pod", state(expr.CtStateBitINVALID), device(expr.MetaKeyOIFNAME, l.podInterface, expr.CmpOpEq), drop())
}

func (l layout) goUnallocated() nft.Rule { return rule("unallocated", verdict(unallocatedChain)) }

// dropUnallocated is silent: someone may have had the address a moment ago, or will in a moment.
func (l layout) dropUnallocated() []nft.Rule {
	_, n := l.width()
	var out []nft.Rule
	for _, p := range l.cidrs {
		out = append(out, rule("nobody's address in "+p.String(), l.to(key),
			l.masked(key, p.Bits()), plain(&expr.Cmp{Op: expr.CmpOpEq, Register: key, Data: p.Masked().Addr().AsSlice()[:n]}), drop()))
	}
	return out
}

// admit lets through who is in a prefix of one of the lengths, and nobody else. Where there is nothing
// to go to they are let through as they are.
func (l layout) admit(lengths []int, to nft.Verdict) []nft.Rule {
	w, _ := l.width()
	var out []nft.Rule
	on := plain(&expr.Verdict{Kind: expr.VerdictAccept})
	if to != "" {
		on = verdict(string(to))
	}
	for _, n := range lengths {
		out = append(out, rule(fmt.Sprintf("from a /%d", n), l.destination(key),
			// A number as it is, nft shows as garbage; one of one it knows.
			plain(&expr.Numgen{Register: l.slot(), Modulus: 1, Type: unix.NFT_NG_RANDOM, Offset: uint32(n)}),
			l.source(key+w+3), l.masked(key+w+3, n), found(sources, key), on))
	}
	return append(out, rule("from nowhere else", drop()))
}

// masked leaves so many bits of the address in the register.
func (l layout) masked(r uint32, bits int) []nft.Expr {
	_, n := l.width()
	mask := make([]byte, n)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return plain(&expr.Bitwise{SourceRegister: r, DestRegister: r, Len: n, Mask: mask, Xor: make([]byte, n)})
}

func drop() []nft.Expr { return plain(&expr.Verdict{Kind: expr.VerdictDrop}) }

func (l layout) refuseUndefined() nft.Rule {
	return rule("undefined ports of cluster IPs", l.to(key), found(clusterIPs, key), verdict(rejectChain))
}

func (l layout) reset() nft.Rule {
	return rule("reset TCP", plain(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}))
}

func (l layout) portUnreachable() nft.Rule {
	code := uint8(3) // ICMP: port unreachable
	if l.family == nft.IPv6 {
		code = 4 // ICMPv6: the same
	}
	return rule("port unreachable", plain(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}))
}

func (l layout) masqueradeMarked() nft.Rule {
	return rule("masquerade what is marked", marked(), flipMark(), masquerade())
}

func (l layout) masqueradeHairpin() nft.Rule {
	w, _ := l.width()
	return rule("masquerade who reaches itself", translated(), l.source(key), l.to(key+w), found(hairpin, key), masquerade())
}

func (l layout) countTraffic() nft.Rule {
	return rule("traffic", translated(), l.pair(), count(traffic))
}

// countArriving leaves out loopback: what comes from there was counted as it left.
func (l layout) countArriving() nft.Rule {
	return rule("traffic", device(expr.MetaKeyIIFNAME, "lo\x00", expr.CmpOpNeq), translated(), l.pair(), count(traffic))
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

// destination loads address . protocol . port of the packet into registers from r on.
func (l layout) destination(r uint32) []nft.Expr {
	w, _ := l.width()
	return slices.Concat(l.to(r), protocol(r+w), port(r+w+1))
}

// pair loads the key of a pair from the flow: where it was sent first, and who answers.
func (l layout) pair() []nft.Expr {
	w, _ := l.width()
	return append(l.original(key),
		nft.Tuple{Field: nft.Source, Reply: true, Register: key + w + 2},
		nft.Tuple{Field: nft.SourcePort, Reply: true, Register: key + 2*w + 2})
}

// original loads address . protocol . port that the flow was sent to first.
func (l layout) original(r uint32) []nft.Expr {
	w, _ := l.width()
	return slices.Concat(
		[]nft.Expr{nft.Tuple{Field: nft.Destination, Register: r}},
		protocol(r+w),
		[]nft.Expr{nft.Tuple{Field: nft.DestinationPort, Register: r + w + 1}})
}

func protocol(r uint32) []nft.Expr { return plain(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}) }

// port loads the destination port.
func port(r uint32) []nft.Expr {
	return plain(&expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// source and to load the packet's addresses.
func (l layout) source(r uint32) []nft.Expr { return l.address(r, 12, 8) }
func (l layout) to(r uint32) []nft.Expr     { return l.address(r, 16, 24) }

// address loads an address from its offset in the header of IPv4 or IPv6.
func (l layout) address(r, offset4, offset6 uint32) []nft.Expr {
	_, n := l.width()
	offset := offset4
	if l.family == nft.IPv6 {
		offset = offset6
	}
	return plain(&expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n})
}

func (l layout) translate(address, port uint32) *expr.NAT {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(l.family), RegAddrMin: address, RegProtoMin: port, Specified: true}
}

func found(s set, r uint32) []nft.Expr {
	return plain(&expr.Lookup{SourceRegister: r, SetName: sets[s].Name})
}

// decide looks up the number of the frontend in the key, and does what it means. The number comes to lie
// where the packet's mark was loaded to, for the sake of nft: see rules_memory.go.
func decide(s, meaning set) []nft.Expr {
	const number = scratch
	return slices.Concat(
		lookUp(s, key, number-1),
		plain(&expr.Byteorder{SourceRegister: number, DestRegister: number, Op: expr.ByteorderNtoh, Len: 4, Size: 4},
			&expr.Lookup{SourceRegister: number, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: sets[meaning].Name}))
}

// loadMark is for decide, and comes before the key.
func loadMark() []nft.Expr { return plain(&expr.Meta{Key: expr.MetaKeyMARK, Register: scratch}) }

func count(s set) []nft.Expr {
	return plain(&expr.Dynset{
		SrcRegKey: key, SetName: sets[s].Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&expr.Counter{}},
	})
}

func verdict(chain string) []nft.Expr {
	return plain(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func masquerade() []nft.Expr { return plain(&expr.Masq{FullyRandom: true}) }

func (l layout) fromPod(op expr.CmpOp) []nft.Expr {
	return device(expr.MetaKeyIIFNAME, l.podInterface, op)
}

// device compares the name of the interface that the packet came by, or goes by; one without a
// zero byte at its end is a prefix.
func device(which expr.MetaKey, name string, op expr.CmpOp) []nft.Expr {
	return plain(
		&expr.Meta{Key: which, Register: key},
		&expr.Cmp{Op: op, Register: key, Data: []byte(name)})
}

func fromSelf() []nft.Expr {
	return plain(
		&expr.Meta{Key: expr.MetaKeyIIF, Register: scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: native(0)})
}

func stateNew() []nft.Expr { return state(expr.CtStateBitNEW) }

// state is for packets of flows in that state.
func state(bit uint32) []nft.Expr {
	return append(plain(&expr.Ct{Key: expr.CtKeySTATE, Register: scratch}), bits(bit, expr.CmpOpNeq)...)
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
