package ec2

import (
	"maps"
	"net/netip"
	"slices"
)

// Lengths of the prefixes that interfaces are given.
const (
	prefixBits     = 28
	prefixBitsIPv6 = 80
)

// ground is a subnet's range of one family, and what of it is taken: addresses one by one, and whole
// blocks that are somebody's prefix. The region gives the lowest that is free.
type ground struct {
	cidr    netip.Prefix
	bits    int // of a block
	kept    []Reservation
	homes   []netip.Addr
	singles map[netip.Addr]string   // whose
	mixed   map[netip.Prefix]int    // how many singles are in a block
	blocks  map[netip.Prefix]string // whose
}

func (r *Records) ground(s *Subnet) *ground {
	g := &ground{cidr: s.CIDR, bits: prefixBits, kept: s.Reservations, homes: slices.Collect(maps.Values(r.Homes))}
	g.clear()
	for _, n := range r.Interfaces {
		if n.Subnet == s.ID {
			g.hold(n.ID, n.Addresses, n.Prefixes)
		}
	}
	return g
}

func (r *Records) groundIPv6(s *Subnet) *ground {
	g := &ground{cidr: s.IPv6, bits: prefixBitsIPv6}
	g.clear()
	for _, n := range r.Interfaces {
		if n.Subnet == s.ID {
			g.hold(n.ID, n.IPv6, n.IPv6Prefixes)
		}
	}
	return g
}

func (g *ground) clear() {
	g.singles, g.mixed, g.blocks = map[netip.Addr]string{}, map[netip.Prefix]int{}, map[netip.Prefix]string{}
	for _, a := range slices.Concat(reserved(g.cidr), g.homes) {
		g.mixed[g.block(a)]++
	}
}

func (g *ground) hold(who string, singles []netip.Addr, blocks []netip.Prefix) {
	for _, a := range singles {
		g.singles[a] = who
		g.mixed[g.block(a)]++
	}
	for _, b := range blocks {
		g.blocks[b] = who
	}
}

// release gives an address back.
func (g *ground) release(a netip.Addr) {
	delete(g.singles, a)
	g.mixed[g.block(a)]--
}

// holder is the interface that has an address, alone or within a prefix; "" where nobody has.
func (g *ground) holder(a netip.Addr) string {
	if who, ok := g.singles[a]; ok {
		return who
	}
	return g.blocks[g.block(a)]
}

func (g *ground) block(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, g.bits).Masked() }

func (g *ground) reserved(a netip.Addr) bool {
	return slices.Contains(reserved(g.cidr), a)
}

// reservation is the one that an address is in.
func (g *ground) reservation(a netip.Addr) (Reservation, bool) {
	for _, k := range g.kept {
		if k.CIDR.Contains(a) {
			return k, true
		}
	}
	return Reservation{}, false
}

// usable tells why an address or block that was asked for by value cannot be given, other than that
// somebody has it.
func (g *ground) usable(a netip.Addr) error {
	switch {
	case !g.cidr.Contains(a):
		return refuse(codeValue, "Address %s does not fall within the subnet's address range", a)
	case g.reserved(a):
		return refuse(codeValue, "Address %s is in subnet's reserved address range", a)
	}
	return nil
}

func (g *ground) usableBlock(b netip.Prefix) error {
	switch {
	case b.Bits() != g.bits || b != b.Masked():
		return refuse(codeValue, "Value (%s) for parameter prefix is invalid. It must be a /%d with no host bits set", b, g.bits)
	case !within(g.cidr, b):
		return refuse(codeValue, "Prefix %s does not fall within the subnet's address range", b)
	case !g.freeBlock(b):
		return refuse(codeInUse, "Prefix %s is in use", b)
	}
	return nil
}

func (g *ground) freeBlock(b netip.Prefix) bool { return g.blocks[b] == "" && g.mixed[b] == 0 }

// take gives somebody so many addresses.
func (g *ground) take(who string, count int) ([]netip.Addr, error) {
	var out []netip.Addr
	for a := g.cidr.Addr(); len(out) < count; a = next(a, a.BitLen()) {
		if !g.cidr.IsValid() || !g.cidr.Contains(a) {
			return nil, refuse("InsufficientFreeAddressesInSubnet",
				"The specified subnet does not have enough free addresses to satisfy the request.")
		}
		if _, kept := g.reservation(a); kept || g.reserved(a) || slices.Contains(g.homes, a) || g.holder(a) != "" {
			continue
		}
		out = append(out, a)
	}
	g.hold(who, out, nil)
	return out, nil
}

// takeBlocks gives somebody so many blocks: first from what is reserved for prefixes.
func (g *ground) takeBlocks(who string, count int) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, fromReserved := range []bool{true, false} {
		for b := netip.PrefixFrom(g.cidr.Addr(), g.bits); len(out) < count && within(g.cidr, b); b = netip.PrefixFrom(next(b.Addr(), g.bits), g.bits) {
			k, kept := g.reservation(b.Addr())
			if g.freeBlock(b) && kept == fromReserved && (!kept || k.Type == ReservePrefix) && !g.split(b) {
				out = append(out, b)
			}
		}
	}
	if len(out) < count {
		return nil, refuse("InsufficientCidrBlocks",
			"The specified subnet does not have enough free cidr blocks to satisfy the request.")
	}
	g.hold(who, nil, out)
	return out, nil
}

// split tells whether a reservation that keeps addresses for those who ask by value covers a part of a block.
func (g *ground) split(b netip.Prefix) bool {
	for _, k := range g.kept {
		if k.Type == ReserveExplicit && k.CIDR.Overlaps(b) {
			return true
		}
	}
	return false
}

// FreeAddresses is how many IPv4 addresses of a subnet nobody has. A prefix has all of its addresses.
func (r *Records) FreeAddresses(s *Subnet) int {
	g := r.ground(s)
	return 1<<(32-s.CIDR.Bits()) - len(reserved(s.CIDR)) - len(g.singles) - len(g.blocks)<<(32-prefixBits)
}

// reserved are the addresses of a subnet that are never given: the first four, and the last.
func reserved(p netip.Prefix) []netip.Addr {
	if !p.IsValid() {
		return nil
	}
	out := []netip.Addr{p.Addr()}
	for range 3 {
		out = append(out, next(out[len(out)-1], p.Addr().BitLen()))
	}
	return append(out, last(p))
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// next is the address one block of so many bits further on.
func next(a netip.Addr, bits int) netip.Addr {
	b := a.AsSlice()
	carry := 1 << ((8 - bits%8) % 8)
	for i := (bits - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := int(b[i]) + carry
		b[i], carry = byte(sum), sum>>8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// within tells whether a range holds the whole of another.
func within(outer, inner netip.Prefix) bool {
	return outer.IsValid() && inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
