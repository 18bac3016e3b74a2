package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// What Go reads has the sizes that the programs write.
func TestSizes(t *testing.T) {
	spec, err := loadObject()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{
		objectMapOwners: binary.Size(owner{}), objectMapCounters: binary.Size(counts{}),
		objectMapOthers: binary.Size(way{}), objectMapEpoch: 8, objectMapGenerations: 4,
	} {
		if got := spec.Maps[name].ValueSize; int(got) != size {
			t.Errorf("%s: %d bytes, read as %d", name, got, size)
		}
	}
	if got := spec.Variables[objectVarSettings].Size(); int(got) != binary.Size(settings{}) {
		t.Errorf("settings: %d bytes, written as %d", got, binary.Size(settings{}))
	}
	if got := spec.Maps[objectMapNumbers].KeySize; int(got) != binary.Size(key{}) {
		t.Errorf("key: %d bytes, read as %d", got, binary.Size(key{}))
	}
	if d := spec.Maps[objectMapDialled]; d.MaxEntries != dialledPlaces || int(d.ValueSize) != binary.Size(front{}) {
		t.Errorf("dialled: %v", d)
	}
	if got := spec.Maps[objectMapPlaces].ValueSize; int(got) != binary.Size(socketPlace{}) {
		t.Errorf("places: %d bytes, read as %d", got, binary.Size(socketPlace{}))
	}
	if got := spec.Maps[objectMapOthers].MaxEntries; got != reasons*sides*ways {
		t.Errorf("others: %d", got)
	}
}

func TestKeys(t *testing.T) {
	four := key{
		Client: [16]byte{10, 1, 0, 10}, Server: [16]byte{10, 1, 0, 11}, Front: [16]byte{10, 9, 0, 1}, FrontPort: [2]byte{0, 80}, Port: [2]byte{0x1f, 0x90},
		Protocol: model.TCP, Family: unix.AF_INET, Side: meter.BothEnds, Masqueraded: 1, Cgroup: 7,
	}
	six := key{
		Client: netip.MustParseAddr("fd01::10").As16(), Server: netip.MustParseAddr("fd02::1").As16(), Port: [2]byte{0, 53},
		Protocol: model.UDP, Family: unix.AF_INET6, Side: meter.ClientEnd,
	}
	for _, c := range []struct {
		key  key
		want meter.Key
	}{
		{four, meter.Key{
			Client: netip.MustParseAddr("10.1.0.10"), Dialled: netip.MustParseAddrPort("10.9.0.1:80"), Server: netip.MustParseAddrPort("10.1.0.11:8080"),
			Protocol: model.TCP, Side: meter.BothEnds, Masqueraded: true, Cgroup: 7,
		}},
		{six, meter.Key{
			Client: netip.MustParseAddr("fd01::10"), Server: netip.MustParseAddrPort("[fd02::1]:53"), Protocol: model.UDP, Side: meter.ClientEnd,
		}},
	} {
		if got := c.key.meter(); got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

// Who has an older kernel is told which one it takes.
func TestOldKernel(t *testing.T) {
	var u *Unsupported
	if err := refused(fmt.Errorf("load program: %w", unix.EINVAL)); !errors.As(err, &u) || !strings.Contains(u.Missing, "Linux 6.4") {
		t.Error(err)
	}
}

// A counter that was counted some ticks ago was counted then.
func TestTicks(t *testing.T) {
	now := ticks{jiffies: 1000, since: time.Minute, each: 4 * time.Millisecond}
	for jiffies, want := range map[uint64]time.Duration{1000: time.Minute, 750: 59 * time.Second, 1001: time.Minute} {
		if got := now.at(jiffies); got != want {
			t.Errorf("%d: %v, want %v", jiffies, got, want)
		}
	}
}
