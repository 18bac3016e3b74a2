package nft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// encoder appends messages of nf_tables to one buffer.
type encoder struct {
	b      []byte
	seq    uint32 // of the last message
	start  int    // where the last message begins
	family Family
}

const (
	attrHeader = 4
	// nfHeader is family, version and resource, which follow the header of every message.
	nfHeader = 4
)

// message begins a message, which lasts until done.
func (e *encoder) message(kind, flags uint16) {
	e.raw(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, e.family, 0)
}

// bracket is a message that begins or ends a transaction.
func (e *encoder) bracket(kind uint16) {
	e.raw(kind, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	e.done()
}

func (e *encoder) raw(kind, flags uint16, family Family, resource uint16) {
	e.seq++
	e.start = len(e.b)
	e.b = append(e.b, 0, 0, 0, 0)
	e.b = binary.NativeEndian.AppendUint16(e.b, kind)
	e.b = binary.NativeEndian.AppendUint16(e.b, flags|unix.NLM_F_REQUEST)
	e.b = binary.NativeEndian.AppendUint32(e.b, e.seq)
	e.b = append(e.b, 0, 0, 0, 0, byte(family), unix.NFNETLINK_V0)
	e.b = binary.BigEndian.AppendUint16(e.b, resource)
}

func (e *encoder) done() {
	binary.NativeEndian.PutUint32(e.b[e.start:], uint32(len(e.b)-e.start))
}

// acknowledge asks for an answer to the last message.
func (e *encoder) acknowledge() {
	flags := e.b[e.start+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

func (e *encoder) header(kind uint16, size int) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(attrHeader+size))
	e.b = binary.NativeEndian.AppendUint16(e.b, kind)
}

func (e *encoder) pad() {
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

// number is an attribute of four bytes. The kernel's own numbers are big-endian.
func (e *encoder) number(kind uint16, v uint32) {
	e.header(kind, 4)
	e.b = binary.BigEndian.AppendUint32(e.b, v)
}

// text is an attribute that ends with a zero byte.
func (e *encoder) text(kind uint16, s string) {
	e.header(kind, len(s)+1)
	e.b = append(append(e.b, s...), 0)
	e.pad()
}

// bytes is an attribute of raw bytes.
func bytes[T string | []byte](e *encoder, kind uint16, v T) {
	e.header(kind, len(v))
	e.b = append(e.b, v...)
	e.pad()
}

// open begins an attribute of attributes and returns what close needs to end it.
func (e *encoder) open(kind uint16) (at int) {
	at = len(e.b)
	e.header(kind|unix.NLA_F_NESTED, 0)
	return at
}

func (e *encoder) close(at int) {
	binary.NativeEndian.PutUint16(e.b[at:], uint16(len(e.b)-at))
}

// encode appends the messages of one change to the table.
func (e *encoder) encode(table string, o op) error {
	switch o.verb {
	case addTable, delTable:
		e.message(o.verb.message())
		e.text(unix.NFTA_TABLE_NAME, table)
	case addChain, delChain:
		e.message(o.verb.message())
		e.text(unix.NFTA_CHAIN_TABLE, table)
		e.chain(o.chain)
	case addRule, flushChain:
		e.message(o.verb.message())
		e.text(unix.NFTA_RULE_TABLE, table)
		e.text(unix.NFTA_RULE_CHAIN, o.chain.Name)
		if o.verb == addRule {
			if err := e.rule(o.rule); err != nil {
				return fmt.Errorf("%s: %w", o, err)
			}
		}
	case addSet:
		e.message(o.verb.message())
		e.text(unix.NFTA_SET_TABLE, table)
		e.set(o.set)
	case addElements, delElements:
		e.elements(table, o)
	}
	e.done()
	return nil
}

// message returns the kind and the flags of the verb's messages.
func (v verb) message() (kind, flags uint16) {
	switch v {
	case addTable:
		return unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE
	case delTable:
		return unix.NFT_MSG_DELTABLE, 0
	case addChain:
		return unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE
	case delChain:
		return unix.NFT_MSG_DELCHAIN, 0
	case addRule:
		return unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND
	case flushChain:
		return unix.NFT_MSG_DELRULE, 0 // of a chain, without saying which
	case addSet:
		return unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE
	case addElements:
		return unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE
	default:
		return unix.NFT_MSG_DELSETELEM, 0
	}
}

func (e *encoder) chain(c Chain) {
	e.text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook == nil {
		return
	}
	at := e.open(unix.NFTA_CHAIN_HOOK)
	e.number(unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook.Point))
	e.number(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
	e.close(at)
	e.text(unix.NFTA_CHAIN_TYPE, string(c.Hook.Type))
}

func (e *encoder) rule(r Rule) error {
	at := e.open(unix.NFTA_RULE_EXPRESSIONS)
	for _, x := range r.Exprs {
		item := e.open(unix.NFTA_LIST_ELEM)
		if err := x.encode(e); err != nil {
			return err
		}
		e.close(item)
	}
	e.close(at)
	e.note(unix.NFTA_RULE_USERDATA, noteOfRule, r.Comment)
	return nil
}

// A comment is kept in the form that nft shows: what it is, its length, and the text.
const (
	noteHeader = 2
	noteOfRule = 0
	noteOfSet  = 7
)

func (e *encoder) note(kind uint16, of byte, s string) {
	e.header(kind, noteHeader+len(s)+1)
	e.b = append(e.b, of, byte(len(s)+1))
	e.b = append(append(e.b, s...), 0)
	e.pad()
}

// comment is the inverse of note for a rule whose notes begin with a comment.
func comment(notes []byte) string {
	if len(notes) < noteHeader || notes[0] != noteOfRule || len(notes) < noteHeader+int(notes[1]) {
		return ""
	}
	return text(notes[noteHeader : noteHeader+int(notes[1])])
}
