package vpc

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func samples(free ...int) []Sample {
	var out []Sample
	for i, f := range free {
		out = append(out, Sample{At: epoch.Add(time.Duration(i) * time.Hour), Free: f})
	}
	return out
}

func TestForecast(t *testing.T) {
	for want, s := range map[string][]Sample{
		"0 free addresses":                                        nil,
		"9 free addresses, not getting fewer":                     samples(9),
		"100 free addresses, 10.0 an hour fewer: full in 10h0m0s": samples(130, 120, 110, 100),
		"130 free addresses, not getting fewer":                   samples(100, 110, 120, 130),
		"1 free address, 1.0 an hour fewer: full in 1h0m0s":       samples(4, 3, 2, 1),
		"196 free addresses, 1.0 an hour fewer: full in 196h0m0s": samples(200, 199, 120, 197, 196), // a rollout
		"500 free addresses, not getting fewer":                   {{At: epoch, Free: 600}, {At: epoch, Free: 500}},
		"50 free addresses, not getting fewer":                    samples(50, 50, 50),
	} {
		if got := NewForecast(s).String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if f := NewForecast(samples(1000001, 1000000)); f.Left != 0 {
		t.Errorf("in more than ten years is not in any time: %s", f.Left)
	}
	for _, c := range []struct {
		f    Forecast
		full bool
	}{
		{Forecast{Free: 0}, true}, {Forecast{Free: 5}, false}, {Forecast{Free: 5, Left: time.Hour}, true}, {Forecast{Free: 5, Left: 48 * time.Hour}, false},
	} {
		if c.f.Full(24*time.Hour) != c.full {
			t.Errorf("%+v", c.f)
		}
	}
}

func TestThin(t *testing.T) {
	s := samples(9, 8, 7, 6, 5, 4, 3, 2, 1)
	if got := fmt.Sprint(Thin(s, 5)); got != fmt.Sprint([]Sample{s[0], s[2], s[4], s[6], s[8]}) {
		t.Error(got)
	}
	if got := Thin(s, 9); len(got) != 9 {
		t.Error(got)
	}
}

// The blocks that are said to be free are those that the cloud would give.
func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Type: "large", Interfaces: 2, IPv4: 1000, Prefixes: true}
		subnet := netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), rapid.IntRange(24, 28).Draw(t, "bits"))
		f := NewFake(limits, epoch, subnet.String())
		var taken []netip.Addr
		for range rapid.IntRange(0, 12).Draw(t, "taken") {
			taken = append(taken, plus(subnet.Addr(), uint32(rapid.IntRange(0, 255).Draw(t, "address"))))
		}
		f.Take(taken...)
		prefixes := f.assign(&f.interfaces[0], rapid.IntRange(0, 2).Draw(t, "prefixes"), true).Prefixes
		taken = append(taken, f.interfaces[0].Address)
		want := len(f.find(subnet, 1000, prefixSize))
		if got := Blocks(subnet, taken, prefixes); got != want {
			t.Fatalf("%s with %v and %v taken: %d, the cloud has %d", subnet, taken, prefixes, got, want)
		}
	})
	if n := Blocks(netip.MustParsePrefix("10.0.0.0/29"), nil, nil); n != 0 {
		t.Error(n)
	}
}
