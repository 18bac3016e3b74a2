package nft

import (
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// Clients are remembered by group, so that all frontends of a Service port share one memory. A
// first packet to such a frontend asks the memory (chain kept): if the endpoint there is among the
// frontend's, that is where it goes; else the client is forgotten, and an endpoint drawn as for
// anybody. Behind the translation, where the packet's own destination is the endpoint, the chain
// remember-N notes it, or begins the time anew. When the memory is full nothing is noted.
//
// The group comes out of a map and is then a part of a key. nft 1.0.6 does not know how long a
// value of a map is, and aborts when it has to show one within a key (decision 7). But it
// takes a value for one register. So the values of groups and sticky, and of maps of numbers, begin with a field that
// nobody needs, and the registers behind it are loaded beforehand with fields of the packet like
// those that will come to lie there. nft shows these, and the kernel overwrites them.

// Where things lie, for addresses of w registers: a value at key, the group or the endpoint
// behind its first field, and behind that the rest of the key that it is a part of.
const value = key + 1

// group loads group address . group port . client . protocol from value on, for the frontend
// whose key is made by load.
func (l layout) group(load func(r uint32) []nft.Expr) []nft.Expr {
	w, _ := l.width()
	at := scratch + 1 - (w + 2) // the last registers: those before are taken
	return slices.Concat(
		l.to(value), port(value+w),
		load(at), lookUp(groups, at, key),
		l.source(value+w+1), protocol(value+2*w+1))
}

// askMemory goes on behind itself if the client is not remembered.
func (l layout) askMemory(chain string) nft.Rule {
	return rule("who was here before", plain(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}))
}

// useRemembered sends the client where it was sent before, if that is an endpoint of the frontend.
func (l layout) useRemembered(s set) nft.Rule {
	w, _ := l.width()
	return rule("to the same again", l.group(l.destination), lookUp(sticky, value, key),
		l.destination(value+w+1), found(s, value), plain(l.translate(value, value+w)))
}

// forget makes room for the endpoint that will be drawn: a note is renewed, but not rewritten.
func (l layout) forget() nft.Rule {
	const remove = 2 // NFT_DYNSET_OP_DELETE
	return rule("that one is gone", l.group(l.destination), l.note(remove, 0))
}

func (l layout) goRemember() nft.Rule {
	return rule("remember, by number", unconfirmed(), loadMark(), l.original(key), decide(affinity, outcomes))
}

// remember notes the client and its endpoint, or begins the time of the note anew.
func (l layout) remember(d time.Duration) nft.Rule {
	return rule("for "+d.String(), l.group(l.original), l.note(unix.NFT_DYNSET_OP_UPDATE, d))
}

// note does something to the client's note. Its value is the packet's protocol, which is the last
// field of the key too, destination and port.
func (l layout) note(operation uint32, d time.Duration) []nft.Expr {
	w, _ := l.width()
	data := value + 2*w + 1
	return slices.Concat(l.to(data+1), port(data+1+w), plain(&expr.Dynset{
		SrcRegKey: value, SrcRegData: data, SetName: sets[sticky].Name, Operation: operation, Timeout: d,
	}))
}

func lookUp(s set, from, to uint32) []nft.Expr {
	return plain(&expr.Lookup{SourceRegister: from, DestRegister: to, IsDestRegSet: true, SetName: sets[s].Name})
}
