package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	// messageLimit is where a message of elements is full. Its list of elements is one attribute,
	// whose length is 16 bits.
	messageLimit = 1<<16 - 1024
	// elementSize is about what an element takes in a message, to make room beforehand.
	elementSize = 96

	setConcat  = 0x80 // NFT_SET_CONCAT
	descConcat = 2    // NFTA_SET_DESC_CONCAT
	fieldLen   = 1    // NFTA_SET_FIELD_LEN
)

// form is how nft knows a field: its number for the type, and the bytes that are in use.
type form struct{ id, size uint32 }

var forms = [...]form{Addr: {7, 4}, Protocol: {12, 1}, Port: {13, 2}, Mark: {19, 4}, Label: {8, 16}}

// form returns how nft knows the field in a table of the family.
func (f Field) form(of Family) form {
	if f == Addr && of == IPv6 {
		return forms[Label] // which is what nft takes an IPv6 address for
	}
	return forms[f]
}

// Width is what the field takes in keys and values of a table of the family, with its padding.
func (f Field) Width(of Family) int { return aligned(int(f.form(of).size)) }

// kind returns nft's number for the fields together, and their length in bytes. The kernel keeps
// the number for nft, which shows elements by it.
func kind(of Family, fields []Field) (id, size uint32) {
	if len(fields) == 1 {
		f := fields[0].form(of)
		return f.id, f.size
	}
	const bits = 6
	for _, f := range fields {
		id = id<<bits | f.form(of).id
		size += uint32(f.Width(of))
	}
	return id, size
}

func (e *encoder) set(s Set) {
	var flags uint32
	if s.Verdicts || len(s.Data) > 0 {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Timeouts {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if len(s.Key) > 1 {
		flags |= setConcat
	}
	e.text(unix.NFTA_SET_NAME, s.Name)
	e.number(unix.NFTA_SET_FLAGS, flags)
	id, size := kind(e.family, s.Key)
	e.number(unix.NFTA_SET_KEY_TYPE, id)
	e.number(unix.NFTA_SET_KEY_LEN, size)
	e.number(unix.NFTA_SET_ID, e.seq) // required, though we refer to sets by name
	switch {
	case s.Verdicts:
		e.number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		e.number(unix.NFTA_SET_DATA_LEN, 0)
	case len(s.Data) > 0:
		id, size := kind(e.family, s.Data)
		e.number(unix.NFTA_SET_DATA_TYPE, id)
		e.number(unix.NFTA_SET_DATA_LEN, size)
	}
	e.description(s)
	if s.Comment != "" {
		e.note(unix.NFTA_SET_USERDATA, noteOfSet, s.Comment)
	}
}

// description tells the most elements, and the lengths of the fields of a key, without which
// some versions of nft cannot show the set.
func (e *encoder) description(s Set) {
	at := e.open(unix.NFTA_SET_DESC)
	if s.Size > 0 {
		e.number(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if len(s.Key) > 1 {
		fields := e.open(descConcat)
		for _, f := range s.Key {
			field := e.open(unix.NFTA_LIST_ELEM)
			e.number(fieldLen, f.form(e.family).size)
			e.close(field)
		}
		e.close(fields)
	}
	e.close(at)
}

// elements writes as many messages as it takes, and leaves the last for done.
func (e *encoder) elements(table string, o op) {
	rest := o.elements
	for {
		e.message(o.verb.message())
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, o.set.Name)
		list := e.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for len(rest) > 0 && len(e.b)-e.start < messageLimit {
			e.element(&rest[0], o.verb == addElements)
			rest = rest[1:]
		}
		e.close(list)
		if len(rest) == 0 {
			return
		}
		e.done()
	}
}

func (e *encoder) element(x *Element, whole bool) {
	at := e.open(unix.NFTA_LIST_ELEM)
	e.value(unix.NFTA_SET_ELEM_KEY, x.Key)
	switch {
	case !whole:
	case x.Verdict != "":
		data := e.open(unix.NFTA_SET_ELEM_DATA)
		e.verdict(x.Verdict)
		e.close(data)
	case x.Data != "":
		e.value(unix.NFTA_SET_ELEM_DATA, x.Data)
	}
	if whole && x.Expires > 0 {
		bytes(e, unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(x.Expires.Milliseconds())))
	}
	e.close(at)
}

func (e *encoder) value(kind uint16, v string) {
	at := e.open(kind)
	bytes(e, unix.NFTA_DATA_VALUE, v)
	e.close(at)
}

func (e *encoder) verdict(v Verdict) {
	at := e.open(unix.NFTA_DATA_VERDICT)
	if v == Drop {
		e.number(unix.NFTA_VERDICT_CODE, 0) // NF_DROP
	} else {
		var code int32 = unix.NFT_GOTO
		e.number(unix.NFTA_VERDICT_CODE, uint32(code))
		e.text(unix.NFTA_VERDICT_CHAIN, string(v))
	}
	e.close(at)
}
