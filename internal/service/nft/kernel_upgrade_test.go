//go:build kernel

package nft_test

import (
	"io"
	"testing"

	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// A table of another layout is replaced: no flow is lost, and nobody is forgotten.
func TestUpgradeFromAnotherLayout(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		want := map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(hours, s.four()...)}
		d.apply(want)
		before := s.who(t, s.world.out, at(s.cluster, 80))
		c, err := s.dial(s.world.out, "tcp", at(s.cluster, 80), 20*dialTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := read(c)
		must(t, got, err)

		table := kernelnft.Table{Family: kernelnft.IPv4, Name: "zonewise"}
		if s.node != nodeIP {
			table.Family = kernelnft.IPv6
		}
		door := kernelnft.Dial(s.world.node.FD())
		defer door.Close()
		other := kernelnft.NewBatch(table)
		other.DelChain("layout-8")
		other.AddChain(kernelnft.Chain{Name: "layout-1"})
		if err := door.Commit(other); err != nil {
			t.Fatal(err)
		}
		newDataplane(t, s.world).apply(want)
		if contents, _, err := door.Read(table); err != nil || contents.Chains["layout-1"] != nil {
			t.Errorf("the other layout is still there: %v", err)
		}
		line := make([]byte, len("still\n"))
		if _, err := io.WriteString(c, "still\n"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, line); err != nil || string(line) != "still\n" {
			t.Errorf("the connection from before: %q %v", line, err)
		}
		if got := s.spread(t, s.world.out, at(s.cluster, 80)); len(got) != 1 || got[0] != before {
			t.Errorf("the client who was sent to %s is sent to %v", before, got)
		}
	})
}
