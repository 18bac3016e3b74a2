package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Expr is one instruction of a rule: one of the library's, made by Plain, or a Tuple.
type Expr interface{ encode(*encoder) error }

// Plain makes an instruction out of one of the library's.
func Plain(x expr.Any) Expr { return plain{x} }

type plain struct{ expr.Any }

func (p plain) encode(e *encoder) error {
	b, err := expr.Marshal(byte(e.family), p.Any)
	e.b = append(e.b, b...)
	e.pad()
	return err
}

// Tuple loads a field of the flow's address pair, as the first packet had it (before any
// translation), or as answers to it have it. Addresses are loaded by the table's family: by the keys
// that the library has, their length depends on the flow, and nft aborts when it has to show such
// a field within a key.
type Tuple struct {
	Field    TupleField
	Reply    bool
	Register uint32
}

// TupleField is a field of a Tuple.
type TupleField uint32

// The fields of a Tuple. Ports take two bytes of the register, the rest of which is zero.
const (
	Source          TupleField = unix.NFT_CT_SRC_IP
	Destination     TupleField = unix.NFT_CT_DST_IP
	SourcePort      TupleField = unix.NFT_CT_PROTO_SRC
	DestinationPort TupleField = unix.NFT_CT_PROTO_DST
)

func (t Tuple) encode(e *encoder) error {
	e.text(unix.NFTA_EXPR_NAME, "ct")
	at := e.open(unix.NFTA_EXPR_DATA)
	e.number(unix.NFTA_CT_DREG, t.Register)
	e.number(unix.NFTA_CT_KEY, t.key(e.family))
	direction := []byte{0}
	if t.Reply {
		direction[0] = 1
	}
	bytes(e, unix.NFTA_CT_DIRECTION, direction)
	e.close(at)
	return nil
}

// key is the kernel's number for the field of a flow of the family.
func (t Tuple) key(of Family) uint32 {
	switch {
	case of == IPv6 && t.Field == Source:
		return unix.NFT_CT_SRC_IP6
	case of == IPv6 && t.Field == Destination:
		return unix.NFT_CT_DST_IP6
	}
	return uint32(t.Field)
}
