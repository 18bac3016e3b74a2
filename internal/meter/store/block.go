package store

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// A file's flows are rows of numbers beside a dictionary: a party is written once, not for each of
// its flows, and a name once, not for each of its parties.

// row is a flow by its numbers in a book: 72 bytes where model.Flow has more than 300.
type row struct {
	client, server, way uint32
	count               model.FlowCount
}

func (r row) compare(o row) int {
	if r.client != o.client {
		return int(int64(r.client) - int64(o.client))
	}
	if r.server != o.server {
		return int(int64(r.server) - int64(o.server))
	}
	return int(int64(r.way) - int64(o.way))
}

// book is a dictionary and the rows that speak in its numbers, by time.
type book struct {
	parties meter.Numbers[model.Party]
	ways    meter.Numbers[meter.Way]
	rows    map[int64][]row // by the minute's or hour's first second
}

func newBook() *book { return &book{rows: map[int64][]row{}} }

// flow gives a row back as what it was.
func (b *book) flow(r row) model.Flow {
	return model.Flow{FlowKey: b.ways.Values[r.way].Key(b.parties.Values[r.client], b.parties.Values[r.server]), FlowCount: r.count}
}

// tidy sorts parties and rows and adds up rows of one key: the same flows make the same bytes in
// whatever order they came, and neighbours are alike, which is what compression lives on.
func (b *book) tidy() {
	place, wayPlace := b.parties.Sort(model.Party.Compare), b.ways.Sort(meter.Way.Compare)
	for at, rows := range b.rows {
		for i := range rows {
			r := &rows[i]
			r.client, r.server, r.way = place[r.client], place[r.server], wayPlace[r.way]
		}
		b.rows[at] = merge(rows)
	}
}

// merge sorts rows and adds up those of one key.
func merge(rows []row) []row {
	slices.SortFunc(rows, row.compare)
	kept := rows[:0]
	for _, r := range rows {
		if n := len(kept); n > 0 && kept[n-1].compare(r) == 0 {
			kept[n-1].count.Add(r.count)
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// chunk is how many rows are compressed, and read, at a time.
const chunk = 1 << 16

var errMalformed = errors.New("malformed")

// dictionary writes names, then parties and ways as columns of names' numbers.
func (b *book) dictionary() []byte {
	var names meter.Numbers[string]
	var columns []byte
	column := func(n int, get func(int) uint64) {
		columns = binary.AppendUvarint(columns, uint64(n))
		for i := range n {
			columns = binary.AppendUvarint(columns, get(i))
		}
	}
	for _, part := range partyNames {
		column(len(b.parties.Values), func(i int) uint64 { return uint64(names.Number(*part(&b.parties.Values[i]))) })
	}
	ways := b.ways.Values
	column(len(ways), func(i int) uint64 { return uint64(names.Number(ways[i].Service.Namespace)) })
	column(len(ways), func(i int) uint64 { return uint64(names.Number(ways[i].Service.Name)) })
	column(len(ways), func(i int) uint64 { return uint64(names.Number(string(ways[i].Via))) })
	column(len(ways), func(i int) uint64 { return wayNumber(ways[i]) })

	out := binary.AppendUvarint(nil, uint64(len(names.Values)))
	for _, name := range names.Values {
		out = binary.AppendUvarint(out, uint64(len(name)))
		out = append(out, name...)
	}
	return append(out, columns...)
}

// partyNames are a party's columns. All are names: kinds too, of which there are few.
var partyNames = []func(*model.Party) *string{
	func(p *model.Party) *string { return (*string)(&p.Kind) },
	func(p *model.Party) *string { return &p.Zone },
	func(p *model.Party) *string { return &p.Node },
	func(p *model.Party) *string { return &p.Namespace },
	func(p *model.Party) *string { return &p.Workload },
	func(p *model.Party) *string { return &p.Block },
}

// readDictionary is the reverse of dictionary.
func readDictionary(data []byte) (*book, error) {
	in := reader{data: data}
	names := make([]string, in.length())
	for i := range names {
		names[i] = string(in.bytes(in.length()))
	}
	name := func() string {
		n := in.uvarint()
		if n >= uint64(len(names)) {
			in.bad = true
			return ""
		}
		return names[n]
	}
	b := newBook()
	for i, part := range partyNames {
		n := in.length()
		if i == 0 {
			b.parties.Values = make([]model.Party, n)
		}
		if n != len(b.parties.Values) {
			return nil, errMalformed
		}
		for j := range b.parties.Values {
			*part(&b.parties.Values[j]) = name()
		}
	}
	for i, part := range []func(*meter.Way){
		func(w *meter.Way) { w.Service.Namespace = name() },
		func(w *meter.Way) { w.Service.Name = name() },
		func(w *meter.Way) { w.Via = model.Via(name()) },
		func(w *meter.Way) { setWayNumber(w, in.uvarint()) },
	} {
		n := in.length()
		if i == 0 {
			b.ways.Values = make([]meter.Way, n)
		}
		if n != len(b.ways.Values) {
			return nil, errMalformed
		}
		for j := range b.ways.Values {
			part(&b.ways.Values[j])
		}
	}
	return b, in.end()
}

// wayNumber is what of a way is no name, in one number.
func wayNumber(w meter.Way) uint64 {
	n := uint64(w.Port)<<8 | uint64(w.Protocol)
	if w.V6 {
		n |= v6Bit
	}
	return n
}

// setWayNumber is the reverse of wayNumber.
func setWayNumber(w *meter.Way, n uint64) {
	w.Port, w.Protocol, w.V6 = uint16(n>>8), model.Protocol(n), n&v6Bit != 0
}

// v6Bit is above port and protocol.
const v6Bit = 1 << 24

// rowColumns are a row's columns; the client's is the distance from the row before.
var rowColumns = []func(*row) *uint64{
	func(r *row) *uint64 { return &r.count.Connections },
	func(r *row) *uint64 { return &r.count.RequestBytes },
	func(r *row) *uint64 { return &r.count.ResponseBytes },
	func(r *row) *uint64 { return &r.count.RequestPackets },
	func(r *row) *uint64 { return &r.count.ResponsePackets },
	func(r *row) *uint64 { return &r.count.RequestExtra },
	func(r *row) *uint64 { return &r.count.ResponseExtra },
}

func appendRows(out []byte, at int64, rows []row) []byte {
	out = binary.AppendVarint(out, at)
	out = binary.AppendUvarint(out, uint64(len(rows)))
	last := int64(0)
	for i := range rows {
		out = binary.AppendVarint(out, int64(rows[i].client)-last)
		last = int64(rows[i].client)
	}
	for i := range rows {
		out = binary.AppendUvarint(out, uint64(rows[i].server))
	}
	for i := range rows {
		out = binary.AppendUvarint(out, uint64(rows[i].way))
	}
	for _, column := range rowColumns {
		for i := range rows {
			out = binary.AppendUvarint(out, *column(&rows[i]))
		}
	}
	return out
}

// readRows is the reverse of appendRows. It checks that the book has all that the rows name.
func (b *book) readRows(data []byte) (at int64, rows []row, err error) {
	in := reader{data: data}
	at = in.varint()
	rows = make([]row, in.length())
	within := func(n uint64, values int) uint32 {
		if n >= uint64(values) {
			in.bad = true
			return 0
		}
		return uint32(n)
	}
	last := int64(0)
	for i := range rows {
		last += in.varint()
		rows[i].client = within(uint64(last), len(b.parties.Values))
	}
	for i := range rows {
		rows[i].server = within(in.uvarint(), len(b.parties.Values))
	}
	for i := range rows {
		rows[i].way = within(in.uvarint(), len(b.ways.Values))
	}
	for _, column := range rowColumns {
		for i := range rows {
			*column(&rows[i]) = in.uvarint()
		}
	}
	return at, rows, in.end()
}

// reader takes numbers off bytes, and remembers if one did not make sense.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	return v * r.skip(n)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.data)
	return v * int64(r.skip(n))
}

// skip goes on by n bytes and gives 1; if that is no length it gives 0 and leaves nothing to read.
func (r *reader) skip(n int) uint64 {
	if n <= 0 {
		r.data, r.bad = nil, true
		return 0
	}
	r.data = r.data[n:]
	return 1
}

// length is a number of things of which each takes a byte at least.
func (r *reader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.data, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.data) {
		r.data, r.bad = nil, true
		return nil
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken
}

func (r *reader) end() error {
	if r.bad || len(r.data) > 0 {
		return errMalformed
	}
	return nil
}
