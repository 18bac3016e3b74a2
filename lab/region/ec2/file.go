package ec2

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// schema of the file.
const schema = "zonewise.region/v1"

type document struct {
	Schema string `json:"schema"`
	*Records
}

// read returns the records that a file holds; fs.ErrNotExist without a file.
func read(file string) (*Records, error) {
	if file == "" {
		return nil, fs.ErrNotExist
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("region: %w", err)
	}
	r, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("region in %s: %w: take the lab down and up again, which makes it anew", file, err)
	}
	return r, nil
}

func parse(data []byte) (*Records, error) {
	d := document{Records: &Records{}}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	if d.Schema != schema {
		return nil, fmt.Errorf("schema is %q, not %q", d.Schema, schema)
	}
	if d.Homes == nil {
		d.Homes = map[string]netip.Addr{}
	}
	return d.Records, d.check()
}

// write replaces the file as a whole, and returns when it is on disk. It holds keys: nobody else reads it.
func write(file string, r *Records) error {
	if file == "" {
		return nil
	}
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("region: %w", err)
	}
	dir := filepath.Dir(file)
	temporary, err := os.CreateTemp(dir, filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("region: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	if _, err = temporary.Write(data); err == nil {
		err = temporary.Sync()
	}
	if closed := temporary.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("region in %s: %w", file, err)
	}
	return nil
}

func encode(r *Records) ([]byte, error) {
	data, err := json.MarshalIndent(document{schema, r}, "", " ")
	return append(data, '\n'), err
}

// syncDir makes a new name in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// check tells what is wrong with records that come from outside: a record that names one which is not
// there, an address outside of its subnet, or one that two have.
func (r *Records) check() error {
	if len(r.VPC.CIDRs) == 0 || len(r.Zones) == 0 || r.Seed == "" {
		return fmt.Errorf("VPC, zones or seed are missing")
	}
	for id, s := range r.Subnets {
		if s == nil || s.ID != id || !s.CIDR.IsValid() || !s.CIDR.Addr().Is4() || s.IPv6.IsValid() && !s.IPv6.Addr().Is6() {
			return fmt.Errorf("subnet %s: incomplete", id)
		}
	}
	for id, g := range r.Groups {
		if g == nil || g.ID != id {
			return fmt.Errorf("security group %s: incomplete", id)
		}
	}
	for id, i := range r.Instances {
		if i == nil || i.ID != id {
			return fmt.Errorf("instance %s: incomplete", id)
		}
		if _, err := LimitsOf(i.Type); err != nil {
			return fmt.Errorf("instance %s: %w", id, err)
		}
	}
	for id, n := range r.Interfaces {
		if err := r.checkInterface(id, n); err != nil {
			return fmt.Errorf("interface %s: %w", id, err)
		}
	}
	if err := r.checkOwners(); err != nil {
		return err
	}
	for id, i := range r.Instances {
		if attached := r.Attached(id); !i.Gone() && (len(attached) == 0 || attached[0].Attachment.Device != 0) {
			return fmt.Errorf("instance %s: has no primary interface", id)
		}
	}
	return nil
}

func (r *Records) checkInterface(id string, n *Interface) error {
	if n == nil || n.ID != id || len(n.Addresses) == 0 {
		return fmt.Errorf("incomplete")
	}
	if _, err := net.ParseMAC(n.MAC); err != nil {
		return err
	}
	s, ok := r.Subnets[n.Subnet]
	if !ok {
		return fmt.Errorf("no subnet %s", n.Subnet)
	}
	if a := n.Attachment; a != nil && r.Instances[a.Instance] == nil {
		return fmt.Errorf("no instance %s", a.Instance)
	}
	for _, a := range n.Addresses {
		if !s.CIDR.Contains(a) {
			return fmt.Errorf("%s is not in subnet %s", a, s.CIDR)
		}
	}
	for _, a := range n.IPv6 {
		if !s.IPv6.Contains(a) {
			return fmt.Errorf("%s is not in subnet %s", a, s.IPv6)
		}
	}
	for _, p := range n.Prefixes {
		if p.Bits() != prefixBits || !within(s.CIDR, p) {
			return fmt.Errorf("%s is no prefix of subnet %s", p, s.CIDR)
		}
	}
	for _, p := range n.IPv6Prefixes {
		if p.Bits() != prefixBitsIPv6 || !within(s.IPv6, p) {
			return fmt.Errorf("%s is no prefix of subnet %s", p, s.IPv6)
		}
	}
	return nil
}

// checkOwners tells of an address that two interfaces have, or one of them twice.
func (r *Records) checkOwners() error {
	owners := map[netip.Prefix]string{}
	claim := func(p netip.Prefix, id string) error {
		if other, ok := owners[p]; ok {
			return fmt.Errorf("interfaces %s and %s: both have %s", other, id, p)
		}
		owners[p] = id
		return nil
	}
	for id, n := range r.Interfaces {
		for _, p := range slices.Concat(n.Prefixes, n.IPv6Prefixes) {
			if err := claim(p, id); err != nil {
				return err
			}
		}
	}
	for id, n := range r.Interfaces {
		for _, a := range slices.Concat(n.Addresses, n.IPv6) {
			bits := prefixBits
			if a.Is6() {
				bits = prefixBitsIPv6
			}
			block := netip.PrefixFrom(a, bits).Masked()
			if other, ok := owners[block]; ok {
				return fmt.Errorf("interfaces %s and %s: both have %s", other, id, a)
			}
			if err := claim(netip.PrefixFrom(a, a.BitLen()), id); err != nil {
				return err
			}
		}
	}
	return nil
}
