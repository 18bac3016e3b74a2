package meter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// A reading is kept by an agent together with what it has reported of it, so that the next agent
// begins where this one ended. As bytes it is this mark, numbers as varints, texts and addresses after
// their length, and a checksum of all of it (CRC-32, IEEE).
const readingMark = "zwr1"

// MarshalBinary writes the reading down: the same one always as the same bytes.
func (r Reading) MarshalBinary() ([]byte, error) {
	wall, err := r.Wall.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("wall: %w", err)
	}
	b := make([]byte, 0, 128+64*(len(r.Totals)+len(r.Gone)))
	b = append(b, readingMark...)
	b = appendText(b, []byte(r.Boot))
	b = binary.AppendUvarint(b, r.Epoch)
	b = binary.AppendVarint(b, int64(r.At))
	b = appendText(b, wall)
	b = binary.AppendUvarint(b, r.Uncounted.Packets)
	b = binary.AppendUvarint(b, r.Uncounted.Bytes)
	b = binary.AppendUvarint(b, uint64(len(r.Totals)))
	for _, k := range slices.SortedFunc(maps.Keys(r.Totals), Key.Compare) {
		b = appendCounter(b, Counter{k, r.Totals[k]})
	}
	b = binary.AppendUvarint(b, uint64(len(r.Gone)))
	for _, c := range r.Gone {
		b = appendCounter(b, c)
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

func appendText(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendCounter(b []byte, c Counter) []byte {
	b = appendAddr(b, netip.AddrPortFrom(c.Client, 0))
	b = appendAddr(b, c.Dialled)
	b = appendAddr(b, c.Server)
	masqueraded := byte(0)
	if c.Masqueraded {
		masqueraded = 1
	}
	b = append(b, byte(c.Protocol), byte(c.Side), masqueraded)
	b = binary.AppendUvarint(b, c.Cgroup)
	for _, n := range fields(&c.FlowCount) {
		b = binary.AppendUvarint(b, *n)
	}
	b = binary.AppendVarint(b, int64(c.Born))
	return binary.AppendVarint(b, int64(c.Last))
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	b = appendText(b, a.Addr().WithZone("").AsSlice())
	return binary.AppendUvarint(b, uint64(a.Port()))
}

// UnmarshalBinary reads what MarshalBinary wrote. What is damaged is an error, and r stays as it was.
func (r *Reading) UnmarshalBinary(b []byte) error {
	end := len(b) - crc32.Size
	if end < len(readingMark) || string(b[:len(readingMark)]) != readingMark {
		return errors.New("reading: not one")
	}
	if crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return errors.New("reading: damaged")
	}
	s := scanner{rest: b[len(readingMark):end]}
	out := Reading{Boot: string(s.text()), Epoch: s.uint(), At: time.Duration(s.int())}
	if err := out.Wall.UnmarshalBinary(s.text()); err != nil && s.err == nil {
		s.err = err
	}
	out.Uncounted = Uncounted{Packets: s.uint(), Bytes: s.uint()}
	n := s.count()
	out.Totals = make(map[Key]Totals, n)
	for range n {
		c := s.counter()
		out.Totals[c.Key] = c.Totals
	}
	if s.err == nil && len(out.Totals) != n {
		s.err = errors.New("a counter is there twice")
	}
	for range s.count() {
		out.Gone = append(out.Gone, s.counter())
	}
	if s.err == nil && len(s.rest) > 0 {
		s.err = errors.New("there is more")
	}
	if s.err != nil {
		return fmt.Errorf("reading: %w", s.err)
	}
	*r = out
	return nil
}

// scanner takes values off bytes until one is missing.
type scanner struct {
	rest []byte
	err  error
}

var errShort = errors.New("it ends too early")

func (s *scanner) uint() uint64 {
	v, n := binary.Uvarint(s.rest)
	s.take(n)
	return v
}

func (s *scanner) int() int64 {
	v, n := binary.Varint(s.rest)
	s.take(n)
	return v
}

// take returns the next n bytes.
func (s *scanner) take(n int) []byte {
	if s.err != nil || n <= 0 || n > len(s.rest) {
		s.rest = nil
		if s.err == nil {
			s.err = errShort
		}
		return nil
	}
	out := s.rest[:n]
	s.rest = s.rest[n:]
	return out
}

func (s *scanner) text() []byte {
	n := s.uint()
	if n == 0 {
		return nil
	}
	return s.take(int(min(n, math.MaxInt32)))
}

// count returns a number of counters, no more than there can be in the rest.
func (s *scanner) count() int {
	n := s.uint()
	if n > uint64(len(s.rest)) {
		s.take(0)
		return 0
	}
	return int(n)
}

func (s *scanner) addr() netip.AddrPort {
	text := s.text()
	port := s.uint()
	if s.err == nil && port > math.MaxUint16 {
		s.err = errors.New("no port")
	}
	a, ok := netip.AddrFromSlice(text)
	if s.err == nil && !ok && len(text) > 0 {
		s.err = errors.New("no address")
	}
	return netip.AddrPortFrom(a, uint16(port))
}

func (s *scanner) counter() Counter {
	c := Counter{}
	c.Client = s.addr().Addr()
	c.Dialled, c.Server = s.addr(), s.addr()
	if b := s.take(3); b != nil {
		c.Protocol, c.Side, c.Masqueraded = model.Protocol(b[0]), Side(b[1]), b[2] != 0
	}
	c.Cgroup = s.uint()
	for _, n := range fields(&c.FlowCount) {
		*n = s.uint()
	}
	c.Born, c.Last = time.Duration(s.int()), time.Duration(s.int())
	return c
}
