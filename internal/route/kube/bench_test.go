package kube_test

import (
	"fmt"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route/kube"
)

func cluster(nodes int) (out []model.Node) {
	for i := range nodes {
		out = append(out, node(fmt.Sprintf("n%04d", i), string(rune('a'+i%3)), cpu(4000+int64(i/3))))
	}
	return out
}

func BenchmarkNew(b *testing.B) {
	nodes := cluster(500)
	for b.Loop() {
		kube.New(nodes)
	}
}

// BenchmarkOf is one Service of 50 endpoints in 3 zones, which upstream hints, and of 11, which it
// refuses; the last is refused for the node that is broken.
func BenchmarkOf(b *testing.B) {
	broken := append(cluster(500), node("n7", ""))
	for _, c := range []struct {
		name  string
		nodes []model.Node
		svc   model.Service
		all   []model.Slice
	}{
		{"nothing", cluster(500), service("", ""), pods(17, 17, 16)},
		{"Auto", cluster(500), service("Auto", ""), pods(17, 17, 16)},
		{"AutoSkewed", cluster(500), service("Auto", ""), pods(30, 15, 5)},
		{"PreferSameZone", cluster(500), service("", "PreferSameZone"), pods(17, 17, 16)},
		{"Refused", cluster(500), service("Auto", ""), pods(4, 4, 3)},
		{"BrokenNode", broken, service("Auto", ""), pods(17, 17, 16)},
	} {
		b.Run(c.name, func(b *testing.B) {
			u := kube.New(c.nodes)
			for b.Loop() {
				u.Of(c.svc, false, c.all)
			}
		})
	}
}
