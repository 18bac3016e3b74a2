//go:build kernel

package bpf

import (
	"errors"
	"maps"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// table is what the door and its fake have in common.
type table interface {
	Max() int
	Put([]uint32, []uint64) error
	Delete([]uint32) error
	Each(func([]uint32, []uint64)) error
}

func contents(t *testing.T, m table) map[uint32]uint64 {
	t.Helper()
	out := map[uint32]uint64{}
	if err := m.Each(func(keys []uint32, values []uint64) {
		for i, k := range keys {
			out[k] = values[i]
		}
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// The fake does what the kernel does.
func TestMaps(t *testing.T) {
	const room = 3 * batch
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "test", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: room, Flags: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, m := range map[string]table{"kernel": NewMap[uint32, uint64](m), "fake": NewFake[uint32, uint64](room)} {
		t.Run(name, func(t *testing.T) {
			if m.Max() != room || len(contents(t, m)) != 0 {
				t.Errorf("room %d, %v", m.Max(), contents(t, m))
			}
			var keys, most []uint32
			var values []uint64
			want := map[uint32]uint64{}
			for i := range uint32(2*batch + 5) {
				keys, values = append(keys, i*3), append(values, uint64(i))
				want[i*3] = uint64(i)
				if i%7 != 0 {
					most = append(most, i) // one in three is there
				}
			}
			if err := errors.Join(m.Put(keys, values), m.Put([]uint32{3}, []uint64{99})); err != nil {
				t.Fatal(err)
			}
			want[3] = 99
			if !maps.Equal(contents(t, m), want) {
				t.Error("put, and not found")
			}
			if err := m.Delete(most); err != nil {
				t.Fatal(err)
			}
			for _, k := range most {
				delete(want, k)
			}
			if !maps.Equal(contents(t, m), want) {
				t.Error("deleted, and still there; or the other way round")
			}
			if err := errors.Join(m.Delete(keys), m.Delete(nil), m.Put(nil, nil)); err != nil || len(contents(t, m)) != 0 {
				t.Errorf("all deleted: %v", err)
			}
			for i := range uint32(room) {
				if err := m.Put([]uint32{i}, []uint64{1}); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Put([]uint32{room}, []uint64{1}); err == nil {
				t.Error("one more than fits was put")
			}
		})
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrTaken) {
		t.Errorf("a second time: %v", err)
	}
	first.Close()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := Lock(dir + "/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	if IsCgroup("/proc") || IsCgroup(t.TempDir()) || IsPinnable(t.TempDir()+"/not/yet") {
		t.Error("a place that is neither was taken for one")
	}
	one, err := NamespaceCookie()
	if err != nil || one == 0 {
		t.Errorf("cookie %d, %v", one, err)
	}
	if two, err := NamespaceCookie(); err != nil || two != one {
		t.Errorf("cookie %d, then %d, %v", one, two, err)
	}
}
