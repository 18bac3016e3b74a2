//go:build kernel

package nft_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// door is what Conn and Fake have in common.
type door interface {
	Commit(*nft.Batch) error
	Read(nft.Table) (nft.Contents, bool, error)
	Elements(nft.Table, nft.Set) ([]nft.Element, error)
}

// t4 is the table that the tests work on.
var t4 = nft.Table{Family: nft.IPv4, Name: "t"}

var (
	addrs    = nft.Set{Name: "addrs", Key: []nft.Field{nft.Addr}}
	values   = nft.Set{Name: "values", Key: []nft.Field{nft.Addr, nft.Mark}, Data: []nft.Field{nft.Addr, nft.Port}}
	verdicts = nft.Set{Name: "verdicts", Key: []nft.Field{nft.Addr, nft.Protocol, nft.Port}, Verdicts: true}
)

// steps is a story that goes through what callers rely on: what is refused, with which error, and
// that a refused batch changes nothing.
var steps = []struct {
	name string
	fill func(*nft.Batch)
	err  error
}{
	{"nothing is there", func(b *nft.Batch) { b.AddSet(addrs) }, syscall.ENOENT},
	{"a table", func(b *nft.Batch) {
		b.AddTable()
		b.AddChain(nft.Chain{Name: "target"})
		b.AddRule("target", nft.Rule{Comment: "first"})
		b.AddRule("target", nft.Rule{Comment: "second"})
		b.AddSet(addrs)
		b.AddSet(values)
		b.AddSet(verdicts)
	}, nil},
	{"again", func(b *nft.Batch) { b.AddTable(); b.AddChain(nft.Chain{Name: "target"}); b.AddSet(addrs) }, nil},
	{"elements", func(b *nft.Batch) {
		b.Add(addrs, nft.Element{Key: "aaaa"}, nft.Element{Key: "bbbb"})
		b.Add(values, nft.Element{Key: "aaaa0001", Data: "zzzz\x00\x01\x00\x00"})
		b.Add(verdicts, nft.Element{Key: "aaaa\x06\x00\x00\x00\x00\x50\x00\x00", Verdict: "target"})
		b.Add(verdicts, nft.Element{Key: "aaaa\x06\x00\x00\x00\x00\x51\x00\x00", Verdict: nft.Drop})
	}, nil},
	{"the same elements", func(b *nft.Batch) { b.Add(addrs, nft.Element{Key: "aaaa"}) }, nil},
	{"another value", func(b *nft.Batch) { b.Add(values, nft.Element{Key: "aaaa0001", Data: "yyyy\x00\x01\x00\x00"}) }, syscall.EEXIST},
	{"another value in its place", func(b *nft.Batch) {
		b.Delete(values, nft.Element{Key: "aaaa0001"})
		b.Add(values, nft.Element{Key: "aaaa0001", Data: "yyyy\x00\x01\x00\x00"})
	}, nil},
	{"half of it wrong", func(b *nft.Batch) {
		b.Add(addrs, nft.Element{Key: "cccc"})
		b.Delete(addrs, nft.Element{Key: "dddd"})
	}, syscall.ENOENT},
	{"a verdict to nowhere", func(b *nft.Batch) {
		b.Add(verdicts, nft.Element{Key: "bbbb\x06\x00\x00\x00\x00\x50\x00\x00", Verdict: "nowhere"})
	}, syscall.ENOENT},
	{"a chain in use", func(b *nft.Batch) { b.FlushChain("target"); b.DelChain("target") }, syscall.EBUSY},
	{"rules anew", func(b *nft.Batch) { b.FlushChain("target"); b.AddRule("target", nft.Rule{Comment: "third"}) }, nil},
	{"a chain no more in use", func(b *nft.Batch) {
		b.Delete(verdicts, nft.Element{Key: "aaaa\x06\x00\x00\x00\x00\x50\x00\x00"})
		b.FlushChain("target")
		b.DelChain("target")
	}, nil},
	{"a table replaced", func(b *nft.Batch) { b.DelTable(); b.AddTable(); b.AddSet(addrs) }, nil},
	{"off", func(b *nft.Batch) { b.DelTable() }, nil},
	{"off again", func(b *nft.Batch) { b.DelTable() }, syscall.ENOENT},
}

// What tests learn from the fake is true of the kernel.
func TestFakeIsLikeTheKernel(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn := nft.Dial(ns.FD())
	defer conn.Close()
	fake := &nft.Fake{}
	for _, s := range steps {
		for _, d := range []door{conn, fake} {
			b := nft.NewBatch(t4)
			s.fill(b)
			if err := d.Commit(b); !errors.Is(err, s.err) {
				t.Errorf("%s: %T: %v, want %v", s.name, d, err, s.err)
			}
		}
		if d := cmp.Diff(look(t, conn), look(t, fake)); d != "" {
			t.Fatalf("%s (-kernel +fake):\n%s", s.name, d)
		}
	}
}

// An error names the change that was refused, wherever in the batch that is.
func TestErrorNamesTheChange(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn := nft.Dial(ns.FD())
	defer conn.Close()
	var many []nft.Element
	for i := range 10_000 {
		many = append(many, nft.Element{Key: string([]byte{1, byte(i >> 8), byte(i), 0})})
	}
	frame := func(b *nft.Batch) {
		b.AddTable()
		b.AddChain(nft.Chain{Name: "c"})
		b.AddSet(addrs)
		b.Add(addrs, many...)
	}
	for want, fill := range map[string]func(*nft.Batch){
		"nft table ip t: add set addrs: no such file or directory": func(b *nft.Batch) { b.AddSet(addrs) },
		"nft table ip t: delete from set addrs: no such file or directory": func(b *nft.Batch) {
			frame(b)
			b.Delete(addrs, nft.Element{Key: "none"})
			b.Delete(addrs, append(slices.Clone(many), nft.Element{Key: "none"})...)
			b.AddChain(nft.Chain{Name: "d"})
		},
		"nft table ip t: add rule to chain none: count: no such file or directory": func(b *nft.Batch) {
			frame(b)
			b.AddRule("none", nft.Rule{Comment: "count"})
			b.DelChain("none")
		},
		"nft table ip t: delete chain none: no such file or directory": func(b *nft.Batch) {
			frame(b)
			b.DelChain("none")
		},
	} {
		b := nft.NewBatch(t4)
		fill(b)
		if err := conn.Commit(b); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	b := nft.NewBatch(t4)
	frame(b)
	if err := conn.Commit(b); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

type seen struct {
	There    bool
	Contents nft.Contents
	Elements map[string][]nft.Element
}

func look(t *testing.T, d door) seen {
	t.Helper()
	contents, there, err := d.Read(t4)
	if err != nil {
		t.Fatal(err)
	}
	out := seen{there, contents, map[string][]nft.Element{}}
	for _, s := range []nft.Set{addrs, values, verdicts} {
		if !contents.Sets[s.Name] {
			continue
		}
		elements, err := d.Elements(t4, s)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(elements, func(a, b nft.Element) int { return slices.Compare([]byte(a.Key), []byte(b.Key)) })
		if len(elements) > 0 {
			out.Elements[s.Name] = elements
		}
	}
	return out
}

// A batch of hundreds of messages goes through whole, or not at all.
func TestBigBatch(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn := nft.Dial(ns.FD())
	defer conn.Close()
	const n = 200_000
	elements := make([]nft.Element, n)
	for i := range elements {
		elements[i].Key = string([]byte{byte(i), byte(i >> 8), byte(i >> 16), 0})
	}
	b := nft.NewBatch(t4)
	b.AddTable()
	b.AddSet(addrs)
	b.Add(addrs, elements...)
	if err := conn.Commit(b); err != nil {
		t.Fatal(err)
	}
	got, err := conn.Elements(t4, addrs)
	if err != nil || len(got) != n {
		t.Fatalf("%d elements of %d: %v", len(got), n, err)
	}
	b = nft.NewBatch(t4)
	b.Delete(addrs, elements...)
	b.Delete(addrs, elements[7])
	if err := conn.Commit(b); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("a bad last message: %v", err)
	}
	if got, err = conn.Elements(t4, addrs); err != nil || len(got) != n {
		t.Fatalf("after a refused batch %d elements of %d: %v", len(got), n, err)
	}
}

// Tables of two families have a name in common and nothing else; an address is as long as its family's.
func TestFamilies(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn := nft.Dial(ns.FD())
	defer conn.Close()
	endpoints := nft.Set{Name: "endpoints", Key: []nft.Field{nft.Addr, nft.Protocol, nft.Port}, Data: []nft.Field{nft.Addr, nft.Port}}
	const port = "\x00\x50\x00\x00"
	for _, d := range []door{conn, &nft.Fake{}} {
		want := map[nft.Table]nft.Element{}
		for family, addr := range map[nft.Family]string{nft.IPv4: "aaaa", nft.IPv6: "aaaabbbbccccdddd"} {
			table := nft.Table{Family: family, Name: "t"}
			want[table] = nft.Element{Key: addr + "\x06\x00\x00\x00" + port, Data: addr + port}
			b := nft.NewBatch(table)
			b.AddTable()
			b.AddSet(endpoints)
			b.Add(endpoints, want[table])
			if err := d.Commit(b); err != nil {
				t.Fatalf("%T: %v", d, err)
			}
		}
		for table, e := range want {
			if got, err := d.Elements(table, endpoints); err != nil || len(got) != 1 || got[0] != e {
				t.Errorf("%T: %s: %v %v, want %v", d, table, got, err, e)
			}
		}
		b := nft.NewBatch(nft.Table{Family: nft.IPv6, Name: "t"})
		b.DelTable()
		if err := d.Commit(b); err != nil {
			t.Errorf("%T: %v", d, err)
		}
		for table := range want {
			_, there, err := d.Read(table)
			if there != (table.Family == nft.IPv4) || err != nil {
				t.Errorf("%T: %s is there: %v %v", d, table, there, err)
			}
		}
	}
}
