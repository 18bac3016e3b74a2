package meter_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// someReading draws a reading in which every field has its turn.
func someReading(t *rapid.T) meter.Reading {
	number := rapid.Uint64()
	a := func(name string) netip.Addr {
		return rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("::ffff:10.0.0.1")}).Draw(t, name)
	}
	ap := func(name string) netip.AddrPort { return netip.AddrPortFrom(a(name), rapid.Uint16().Draw(t, name)) }
	counter := func() meter.Counter {
		return meter.Counter{
			Key: meter.Key{Client: a("client"), Dialled: ap("dialled"), Server: ap("server"), Protocol: model.Protocol(rapid.Uint8().Draw(t, "protocol")),
				Side: meter.Side(rapid.IntRange(0, 3).Draw(t, "side")), Masqueraded: rapid.Bool().Draw(t, "masqueraded"), Cgroup: number.Draw(t, "cgroup")},
			Totals: meter.Totals{Born: time.Duration(rapid.Int64().Draw(t, "born")), Last: time.Duration(rapid.Int64().Draw(t, "last")),
				FlowCount: model.FlowCount{Connections: number.Draw(t, "n"), RequestBytes: number.Draw(t, "n"), ResponseBytes: number.Draw(t, "n"), RequestPackets: number.Draw(t, "n"),
					ResponsePackets: number.Draw(t, "n"), RequestExtra: number.Draw(t, "n"), ResponseExtra: number.Draw(t, "n")}},
		}
	}
	r := meter.Reading{Boot: rapid.String().Draw(t, "boot"), Epoch: number.Draw(t, "epoch"), At: time.Duration(rapid.Int64().Draw(t, "at")),
		Wall: start.Add(time.Duration(rapid.Int64().Draw(t, "wall"))), Uncounted: meter.Uncounted{Packets: number.Draw(t, "n"), Bytes: number.Draw(t, "n")}, Totals: map[meter.Key]meter.Totals{}}
	for range rapid.IntRange(0, 4).Draw(t, "totals") {
		c := counter()
		r.Totals[c.Key] = c.Totals
	}
	for range rapid.IntRange(0, 2).Draw(t, "gone") {
		r.Gone = append(r.Gone, counter())
	}
	return r
}

var sameReading = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()}

// What was written is read, and not one byte of it can be another.
func TestReadingAsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := someReading(t)
		b, err := r.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var got meter.Reading
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, sameReading); diff != "" {
			t.Fatal(diff)
		}
		if again, err := got.MarshalBinary(); err != nil || !slices.Equal(again, b) {
			t.Fatalf("%v: other bytes for the same", err)
		}
		bad := slices.Clone(b)
		bad[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		if err := got.UnmarshalBinary(bad); err == nil {
			t.Fatal("damage is not seen")
		}
		if err := got.UnmarshalBinary(b[:rapid.IntRange(0, len(b)-1).Draw(t, "length")]); err == nil {
			t.Fatal("a part is taken for all")
		}
		if diff := cmp.Diff(r, got, sameReading); diff != "" {
			t.Fatalf("an error changed it: %s", diff)
		}
	})
}

// Whatever is in a file with a right checksum, it is refused, or a reading.
func FuzzReading(f *testing.F) {
	full, err := reading(time.Minute, map[meter.Key]meter.Totals{key("10.0.0.1", "10.0.1.1:80"): {FlowCount: bytes(5), Born: 1}}).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full[:len(full)-crc32.Size])
	f.Add([]byte("zwr1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again meter.Reading
		if r.UnmarshalBinary(binary.BigEndian.AppendUint32(slices.Clone(b), crc32.ChecksumIEEE(b))) != nil {
			return
		}
		text, err := r.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(text); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again, sameReading); diff != "" {
			t.Fatal(diff)
		}
	})
}

// An agent that is killed and begun again, and kept its last reading, tells every byte once.
func TestAgentBeginsAgain(t *testing.T) {
	m := &machine{reading: reading(0, map[meter.Key]meter.Totals{}), truth: map[meter.Key]model.FlowCount{}, born: true}
	kept, err := m.read().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var told uint64
	for i := range 20 {
		for j := range 3 {
			m.reading.At += time.Second
			m.count(key(fmt.Sprint("10.0.0.", j+1), "10.0.1.1:80"), bytes(uint64(1000*i+j)))
		}
		m.reading.Wall = start.Add(m.reading.At)
		if i%5 == 4 {
			m.remove(key("10.0.0.2", "10.0.1.1:80"))
		}
		var before meter.Reading // all that is left of the agent before
		if err := before.UnmarshalBinary(kept); err != nil {
			t.Fatal(err)
		}
		now := m.read()
		flows, lost := meter.Fold(before, now, a1())
		for _, f := range flows {
			told += f.Bytes()
		}
		if lost != (meter.Lost{}) {
			t.Error(lost)
		}
		if kept, err = now.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
	}
	if want := uint64(3*1000*190 + 20*3); told != want {
		t.Errorf("%d bytes are told, %d were sent", told, want)
	}
}
