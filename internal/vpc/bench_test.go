package vpc

import (
	"testing"
	"time"
)

// full is the largest node there is, with all its pods but the last.
func full(b *testing.B, targets Targets) *node {
	n := newNode(b, "p3dn.24xlarge", targets)
	n.in.Node.MaxPods = 737
	n.settle()
	n.start(730)
	n.settle()
	if len(n.leases.Held) != 730 {
		b.Fatal(n.last)
	}
	for range 20 { // some of it cools
		n.stop(0)
		n.now = n.now.Add(time.Second)
	}
	return n
}

func BenchmarkDecide(b *testing.B) {
	for name, targets := range map[string]Targets{"interfaces": DefaultTargets(), "addresses": byIP(5, 10), "prefixes": byPrefix(1, 0, 0)} {
		b.Run(name, func(b *testing.B) {
			in := full(b, targets).input()
			b.ReportAllocs()
			for b.Loop() {
				Decide(in)
			}
		})
	}
}

func BenchmarkAssign(b *testing.B) {
	for name, targets := range map[string]Targets{"interfaces": DefaultTargets(), "prefixes": byPrefix(1, 0, 0)} {
		b.Run(name, func(b *testing.B) {
			n := full(b, targets)
			n.now = n.now.Add(time.Hour)
			n.mark()
			pool := n.supply.Pool()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Assign(pool, n.leases, key(9999), Owner{}, n.now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
