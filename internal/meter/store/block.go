package store

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// A file's flows are rows of numbers beside a dictionary: a party is written once, not for each of
// its flows, and a name once, not for each of its parties.

// way is what of a flow's key is neither client nor server.
type way struct {
	service  model.Name
	port     uint16
	protocol model.Protocol
	via      model.Via
	v6       bool
}

func wayOf(k model.FlowKey) way { return way{k.Service, k.Port, k.Protocol, k.Via, k.V6} }

func (w way) key(client, server model.Party) model.FlowKey {
	return model.FlowKey{Client: client, Server: server, Service: w.service, Port: w.port, Protocol: w.protocol, Via: w.via, V6: w.v6}
}

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

// list numbers values in the order in which they come.
type list[T comparable] struct {
	values  []T
	numbers map[T]uint32
}

func (l *list[T]) number(v T) uint32 {
	n, ok := l.numbers[v]
	if !ok {
		if l.numbers == nil {
			l.numbers = map[T]uint32{}
		}
		n = uint32(len(l.values))
		l.values, l.numbers[v] = append(l.values, v), n
	}
	return n
}

// book is a dictionary and the rows that speak in its numbers, by time.
type book struct {
	parties list[model.Party]
	ways    list[way]
	rows    map[int64][]row // by the minute's or hour's first second
}

func newBook() *book { return &book{rows: map[int64][]row{}} }

// flow gives a row back as what it was.
func (b *book) flow(r row) model.Flow {
	return model.Flow{FlowKey: b.ways.values[r.way].key(b.parties.values[r.client], b.parties.values[r.server]), FlowCount: r.count}
}

// tidy sorts parties and rows and adds up rows of one key: the same flows make the same bytes in
// whatever order they came, and neighbours are alike, which is what compression lives on.
func (b *book) tidy() {
	order := make([]uint32, len(b.parties.values))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return b.parties.values[x].Compare(b.parties.values[y]) })
	place, sorted := make([]uint32, len(order)), make([]model.Party, len(order))
	for i, old := range order {
		place[old], sorted[i] = uint32(i), b.parties.values[old]
	}
	b.parties = list[model.Party]{values: sorted}
	ways, wayPlace := sortedWays(b.ways.values)
	b.ways = list[way]{values: ways}
	for at, rows := range b.rows {
		for i := range rows {
			r := &rows[i]
			r.client, r.server, r.way = place[r.client], place[r.server], wayPlace[r.way]
		}
		b.rows[at] = merge(rows)
	}
}

func sortedWays(ways []way) (sorted []way, place []uint32) {
	key := func(w way) model.FlowKey { return w.key(model.Party{}, model.Party{}) }
	order := make([]uint32, len(ways))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return key(ways[x]).Compare(key(ways[y])) })
	place = make([]uint32, len(ways))
	for i, old := range order {
		sorted, place[old] = append(sorted, ways[old]), uint32(i)
	}
	return sorted, place
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
	var names list[string]
	var columns []byte
	column := func(n int, get func(int) uint64) {
		columns = binary.AppendUvarint(columns, uint64(n))
		for i := range n {
			columns = binary.AppendUvarint(columns, get(i))
		}
	}
	for _, part := range partyNames {
		column(len(b.parties.values), func(i int) uint64 { return uint64(names.number(*part(&b.parties.values[i]))) })
	}
	ways := b.ways.values
	column(len(ways), func(i int) uint64 { return uint64(names.number(ways[i].service.Namespace)) })
	column(len(ways), func(i int) uint64 { return uint64(names.number(ways[i].service.Name)) })
	column(len(ways), func(i int) uint64 { return uint64(names.number(string(ways[i].via))) })
	column(len(ways), func(i int) uint64 { return ways[i].number() })

	out := binary.AppendUvarint(nil, uint64(len(names.values)))
	for _, name := range names.values {
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
			b.parties.values = make([]model.Party, n)
		}
		if n != len(b.parties.values) {
			return nil, errMalformed
		}
		for j := range b.parties.values {
			*part(&b.parties.values[j]) = name()
		}
	}
	for i, part := range []func(*way){
		func(w *way) { w.service.Namespace = name() },
		func(w *way) { w.service.Name = name() },
		func(w *way) { w.via = model.Via(name()) },
		func(w *way) { w.setNumber(in.uvarint()) },
	} {
		n := in.length()
		if i == 0 {
			b.ways.values = make([]way, n)
		}
		if n != len(b.ways.values) {
			return nil, errMalformed
		}
		for j := range b.ways.values {
			part(&b.ways.values[j])
		}
	}
	return b, in.end()
}

// number is what of a way is no name, in one number.
func (w *way) number() uint64 {
	n := uint64(w.port)<<8 | uint64(w.protocol)
	if w.v6 {
		n |= v6Bit
	}
	return n
}

// setNumber is the reverse of number.
func (w *way) setNumber(n uint64) {
	w.port, w.protocol, w.v6 = uint16(n>>8), model.Protocol(n), n&v6Bit != 0
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
		rows[i].client = within(uint64(last), len(b.parties.values))
	}
	for i := range rows {
		rows[i].server = within(in.uvarint(), len(b.parties.values))
	}
	for i := range rows {
		rows[i].way = within(in.uvarint(), len(b.ways.values))
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
