package vpc

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNewPool(t *testing.T) {
	for _, c := range []struct {
		specs []string
		text  string
		size  int
	}{
		{nil, "", 0},
		{[]string{"192.168.1.11-192.168.1.27"}, "192.168.1.11-192.168.1.27", 17},
		{[]string{"192.168.1.16/28"}, "192.168.1.16-192.168.1.31", 16},
		{[]string{"192.168.1.40", "192.168.1.11 - 192.168.1.12"}, "192.168.1.11-192.168.1.12,192.168.1.40-192.168.1.40", 3},
		{[]string{"10.0.0.0/16"}, "10.0.0.0-10.0.255.255", 65536},
	} {
		p, err := NewPool(c.specs)
		if err != nil {
			t.Errorf("%q: %v", c.specs, err)
			continue
		}
		if p.String() != c.text || p.Size() != c.size || len(slices.Collect(p.All())) != c.size {
			t.Errorf("%q: got %s of %d", c.specs, p, p.Size())
		}
	}
}

func TestNewPoolRefuses(t *testing.T) {
	for _, c := range []struct{ specs, want string }{
		{"", `ranges[0] "": "" is not an address`},
		{"192.168.1.27-192.168.1.11", "ends before it begins"},
		{"192.168.1.11-", `"" is not an address`},
		{"192.168.1.17/28", "did you mean 192.168.1.16/28?"},
		{"192.168.1.0/33", "not a prefix"},
		{"10.0.0.0/8", "more than 65536"},
		{"0.0.0.0/0", "more than 65536"},
		{"10.0.0.0/16 10.1.0.0", `ranges[1] "10.1.0.0": pool of more than`},
		{"192.168.1.11-192.168.1.27 192.168.1.20", `ranges[1] "192.168.1.20": overlaps 192.168.1.11-192.168.1.27`},
		{"2001:db8::1", "only IPv4"},
		{"2001:db8::/64", "only IPv4"},
		{"127.0.0.1", "not a unicast address"},
		{"169.254.0.0/24", "not a unicast address"},
		{"224.0.0.0/24", "not a unicast address"},
	} {
		specs := strings.Fields(c.specs)
		if c.specs == "" {
			specs = []string{""}
		}
		_, err := NewPool(specs)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.specs, err, c.want)
		}
	}
}

func TestWithIPv6Refuses(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.0.0.0/8":     "not a prefix of IPv6",
		"fe80::/64":      "not a prefix of IPv6",
		"fd00::1:0:0/64": "did you mean fd00::/64?",
		"fd00::/97":      "use at most /96",
	} {
		_, err := Pool{}.WithIPv6(netip.MustParsePrefix(prefix))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", prefix, err, want)
		}
	}
}

// Whatever text is a pool prints as a text that is the same pool, and agrees with itself on what
// it contains.
func TestPoolRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pools().Draw(t, "pool")
		again, err := NewPool(strings.Split(p.String(), ","))
		if err != nil || again.String() != p.String() {
			t.Fatalf("%s: read back as %s, %v", p, again, err)
		}
		for a := range p.All() {
			if !p.Contains(a) {
				t.Fatalf("%s does not contain its own %s", p, a)
			}
		}
		if p.Contains(netip.MustParseAddr("10.9.0.0")) {
			t.Fatalf("%s contains a foreign address", p)
		}
	})
}

func FuzzNewPool(f *testing.F) {
	f.Add("192.168.1.11-192.168.1.27")
	f.Add("10.0.0.0/16")
	f.Add("255.255.255.255")
	f.Add("::ffff:10.0.0.1")
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := NewPool([]string{spec})
		if err == nil && (p.Size() < 1 || p.Size() > MaxPool) {
			t.Fatalf("%q: %d addresses", spec, p.Size())
		}
	})
}
