package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/service"
)

// Flows between addresses of the untracked ranges get by conntrack, which is most of what a direct
// connection pays for our table, unless somebody translates them. That nobody does must be certain
// before conntrack has seen a packet: an answer that is not tracked is not translated back. So
// these are tracked:
//
//   - what goes to an address of this node: node ports, answers to who was masqueraded, the node's own;
//   - what goes to an address of a Service (set service-addresses, those in the ranges);
//   - all from and to an address whose flow was translated here (set tracked). The first packet of
//     such a flow enters the one who sent it, and every packet of it begins the time anew.
//
// An address can be entered while direct flows of it are under way. Conntrack picks up a flow in the
// middle, but not at its last packet, nor at the answer to its first one: these are of no flow, and
// must not be dropped. Of what is of no flow the forward chain then drops only the rest of TCP.
//
// The chain that lets flows get by is filled last, when all clients of flows that were translated
// before are entered; and emptied first when anything else has to be repaired.

// The chains that are there with untracked ranges alone.
const (
	untrackedChain     = "untracked"
	untrackedToChain   = "untracked-to"
	untrackedFlowChain = "untracked-flow"
	clientChain        = "client"
	trackChain         = "track"
)

// untrackedChains in an order in which nothing that goes comes after what it goes to.
var untrackedChains = []string{untrackedChain, untrackedToChain, untrackedFlowChain, clientChain, trackChain}

// trackedFor is longer than any flow that is translated lasts without a packet: conntrack's own
// time for established TCP is five days.
const trackedFor = 7 * 24 * time.Hour

func (l layout) untracks() bool { return len(l.untracked) > 0 }

// inRanges returns a rule for each range that the address which load loads may be in.
func (l layout) inRanges(what string, load func(r uint32) []nft.Expr, to string) []nft.Rule {
	_, n := l.width()
	out := make([]nft.Rule, 0, len(l.untracked))
	for _, p := range l.untracked {
		out = append(out, rule(what+" "+p.String(), load(key), l.masked(key, p.Bits()),
			plain(&expr.Cmp{Op: expr.CmpOpEq, Register: key, Data: p.Masked().Addr().AsSlice()[:n]}), verdict(to)))
	}
	return out
}

// untrackedFrame returns the chains, targets first.
func (l layout) untrackedFrame() []chain {
	return []chain{
		{nft.Chain{Name: untrackedFlowChain}, []nft.Rule{
			rule("who was translated", l.source(key), found(tracked, key), accept()),
			rule("answers to who was translated", l.to(key), found(tracked, key), accept()),
			rule("to Services", l.to(key), found(serviceAddresses, key), accept()),
			l.toThisNode(),
			rule("not tracked", plain(&expr.Notrack{})),
		}},
		{nft.Chain{Name: untrackedToChain}, l.inRanges("to", l.to, untrackedFlowChain)},
		{nft.Chain{Name: trackChain}, []nft.Rule{
			rule("remember who is translated", l.source(key), l.enterTracked()),
			// When there is no room, the answers must come to this node by its address.
			rule("no room: masquerade", l.source(key),
				plain(&expr.Lookup{SourceRegister: key, SetName: sets[tracked].Name, Invert: true}), setMark()),
		}},
		{nft.Chain{Name: clientChain}, l.inRanges("from", l.source, trackChain)},
	}
}

// untrackedHook is the chain that lets flows get by conntrack.
func (l layout) untrackedHook() chain {
	const raw = -300 // before conntrack, which is at -200
	hook := &nft.Hook{Type: nft.Filter, Point: nft.Prerouting, Priority: raw}
	return chain{nft.Chain{Name: untrackedChain, Hook: hook}, l.inRanges("from", l.source, untrackedToChain)}
}

func accept() []nft.Expr { return plain(&expr.Verdict{Kind: expr.VerdictAccept}) }

func (l layout) toThisNode() nft.Rule {
	return rule("to this node", plain(&expr.Fib{Register: scratch, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: native(unix.RTN_LOCAL)}), accept())
}

// enterTracked enters the address in the key, or begins its time anew.
func (l layout) enterTracked() []nft.Expr {
	return plain(&expr.Dynset{
		SrcRegKey: key, SetName: sets[tracked].Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: trackedFor,
	})
}

// noteClient comes back: more is to be done with a flow's first packet.
func (l layout) noteClient() nft.Rule {
	return rule("who is translated", plain(&expr.Verdict{Kind: expr.VerdictJump, Chain: clientChain}))
}

// renewClient is for every packet of a translated flow, whichever way it goes.
func (l layout) renewClient() nft.Rule {
	return rule("who is still translated", translated(), []nft.Expr{nft.Tuple{Field: nft.Source, Register: key}},
		found(tracked, key), l.enterTracked())
}

// middleOfTCP is for TCP packets that neither begin nor end a connection.
func middleOfTCP() []nft.Expr {
	const flags, ends = 13, 0x01 | 0x02 | 0x04 // FIN, SYN, RST
	return plain(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: scratch, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: scratch, DestRegister: scratch, Len: 1, Mask: []byte{ends}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratch, Data: []byte{0}})
}

// serviceAddress emits the frontend's address if flows to it might get by conntrack. Those of node
// ports are the node's own.
func (l layout) serviceAddress(f *service.Frontend, put emit) {
	a := f.Addr.Addr()
	if f.Kind != service.NodePort && slices.ContainsFunc(l.untracked, func(p netip.Prefix) bool { return p.Contains(a) }) {
		put(serviceAddresses, address(a), "")
	}
}

// holdTracking empties the chain that lets flows get by, or takes away all of it if it is not
// wanted. While the frame is repaired nothing gets by.
func (h *half) holdTracking(b *nft.Batch, contents nft.Contents, repaired bool) {
	comments, there := contents.Chains[untrackedChain]
	h.untracking = false
	switch hook := h.layout.untrackedHook(); {
	case !h.layout.untracks():
		var old []string
		for _, name := range untrackedChains {
			if _, ok := contents.Chains[name]; ok {
				b.FlushChain(name)
				old = append(old, name)
			}
		}
		for _, name := range old {
			b.DelChain(name)
		}
	case !there:
		b.AddChain(hook.Chain)
	case !repaired && slices.Equal(comments, hook.comments()):
		h.untracking = true
	case len(comments) > 0:
		b.FlushChain(untrackedChain)
	}
}

// untrack lets flows get by conntrack, once everybody is entered whose flow has been translated.
func (h *half) untrack() error {
	if !h.layout.untracks() || h.untracking || h.have == nil || !h.there {
		return nil
	}
	clients, err := h.flows.Translated(h.layout.family == nft.IPv6)
	if err != nil {
		h.forgetKernel() // the next change, or the next audit, tries again
		return fmt.Errorf("service flows: %w", err)
	}
	enter := map[string]bool{}
	for _, a := range clients {
		if slices.ContainsFunc(h.layout.untracked, func(p netip.Prefix) bool { return p.Contains(a) }) {
			enter[address(a)] = true
		}
	}
	elements := make([]nft.Element, 0, len(enter))
	for k := range enter {
		elements = append(elements, nft.Element{Key: k, Expires: trackedFor})
	}
	b := nft.NewBatch(h.layout.table())
	b.Add(sets[tracked], elements...)
	for _, r := range h.layout.untrackedHook().rules {
		b.AddRule(untrackedChain, r)
	}
	if err := h.commit(b, &difference{}); err != nil {
		h.forgetKernel()
		return err
	}
	h.untracking = true
	return nil
}
