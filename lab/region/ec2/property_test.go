package ec2

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever is asked of a region in whatever order: each address has one owner, limits hold, counts are
// right, what is refused changes nothing, and the file says the same as the memory.
func TestAnythingInAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, Options{AttachTime: 2 * time.Second, DetachTime: time.Second})
		subnets := []string{r.subnet(subnetA), r.subnet(subnetB)}
		anyInterface := func() string {
			ids := []string{"eni-00000000000000000"}
			for id := range r.Records().Interfaces {
				ids = append(ids, id)
			}
			return rapid.SampledFrom(sorted(ids)).Draw(rt, "interface")
		}
		ask := func() Ask {
			out := Ask{Count: rapid.IntRange(0, 6).Draw(rt, "count"), PrefixCount: rapid.IntRange(0, 2).Draw(rt, "prefixes")}
			if rapid.Bool().Draw(rt, "by value") {
				out.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(rapid.IntRange(1, 2).Draw(rt, "net")), rapid.Byte().Draw(rt, "host")})}
			}
			return out
		}
		steps := map[string]func() error{
			"create": func() error {
				_, err := r.CreateInterface(NewInterface{Subnet: rapid.SampledFrom(subnets).Draw(rt, "subnet"), IPv4: ask()})
				return err
			},
			"delete": func() error { return r.DeleteInterface(anyInterface()) },
			"assign": func() error {
				_, err := r.Assign(anyInterface(), ask(), rapid.Bool().Draw(rt, "reassign"))
				return err
			},
			"assign IPv6": func() error {
				_, err := r.AssignIPv6(anyInterface(), Ask{Count: rapid.IntRange(0, 2).Draw(rt, "count"), PrefixCount: rapid.IntRange(0, 2).Draw(rt, "prefixes")})
				return err
			},
			"unassign": func() error {
				id := anyInterface()
				n := r.Records().Interfaces[id]
				if n == nil {
					return r.Unassign(id, Granted{})
				}
				return r.Unassign(id, Granted{
					Addresses: n.Addresses[rapid.IntRange(0, len(n.Addresses)).Draw(rt, "from"):],
					Prefixes:  n.Prefixes[rapid.IntRange(0, len(n.Prefixes)).Draw(rt, "from prefix"):],
				})
			},
			"attach": func() error {
				i := rapid.SampledFrom([]*Instance{r.a, r.b}).Draw(rt, "instance")
				_, err := r.Attach(i.ID, anyInterface(), rapid.IntRange(0, 4).Draw(rt, "device"), 0)
				return err
			},
			"detach": func() error {
				if n := r.Records().Interfaces[anyInterface()]; n != nil && n.Attachment != nil {
					return r.Detach(n.Attachment.ID)
				}
				return nil
			},
			"wait": func() error {
				r.move(time.Duration(rapid.IntRange(0, 3).Draw(rt, "seconds")) * time.Second)
				return nil
			},
		}
		var names []string
		for name := range steps {
			names = append(names, name)
		}
		names = sorted(names)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			before := r.Records()
			text, _ := json.Marshal(before)
			name := rapid.SampledFrom(names).Draw(rt, "step")
			err := steps[name]()
			if after, _ := json.Marshal(before); string(after) != string(text) {
				rt.Fatalf("%s changed records that were handed out", name)
			}
			if name != "wait" && err != nil && !reflect.DeepEqual(before, r.Records()) {
				rt.Fatalf("%s was refused (%v) and changed the records", name, err)
			}
			checkRegion(rt, r)
		}
	})
}

func checkRegion(t *rapid.T, r *region) {
	records := r.Records()
	if err := records.check(); err != nil {
		t.Fatal(err)
	}
	for _, i := range records.Instances {
		limits, _ := LimitsOf(i.Type)
		attached := records.Attached(i.ID)
		if len(attached) > limits.Interfaces {
			t.Fatalf("%s has %d interfaces", i.Type, len(attached))
		}
		for _, n := range attached {
			if ipv4, ipv6 := n.slots(); ipv4 > limits.Addresses || ipv6 > limits.Addresses {
				t.Fatalf("an interface of a %s has %d and %d slots", i.Type, ipv4, ipv6)
			}
		}
	}
	for _, s := range records.Subnets {
		free, g := 0, records.ground(s)
		for a := s.CIDR.Addr(); s.CIDR.Contains(a); a = a.Next() {
			if g.usable(a) == nil && g.holder(a) == "" {
				free++
			}
		}
		if got := records.FreeAddresses(s); got != free {
			t.Fatalf("%s: %d addresses are free, not %d", s.CIDR, free, got)
		}
		for b := range g.blocks {
			if g.mixed[b] != 0 {
				t.Fatalf("block %s is a prefix and has addresses of its own", b)
			}
		}
	}
	data, err := encode(records)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Delivery(r.clock.now), records.Delivery(r.clock.now)) {
		t.Fatal("who reads the file delivers something else")
	}
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}
