package kube

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// crowd is a Source of one big Service: 1000 endpoints in 10 slices, 500 nodes in 3 zones.
type crowd struct {
	slices []model.Slice
	target Target
}

func (c *crowd) Any() (wanted, known bool)       { return true, true }
func (c *crowd) Services() []model.Name          { return []model.Name{web} }
func (c *crowd) Slices(model.Name) []model.Slice { return c.slices }
func (c *crowd) Target(model.Name, bool, []model.Slice) (Target, bool, error) {
	return c.target, true, nil
}

func newCrowd() *crowd {
	zone := func(i int) string { return string(rune('a' + i%3)) }
	c := &crowd{target: Target{Set: hints.Set{Of: map[netip.Addr]hints.Hint{}}, Plan: model.RoutePlan{MaxOverload: .2}}}
	for i := range 500 {
		c.target.Clients = append(c.target.Clients, hints.Client{Node: fmt.Sprintf("n%03d", i), Zone: zone(i), Share: 1. / 500})
	}
	for i := range 1000 {
		if i%100 == 0 {
			c.slices = append(c.slices, model.Slice{Name: model.Name{Namespace: "default", Name: fmt.Sprintf("web-%d", i/100)}, Service: "web"})
		}
		s := &c.slices[len(c.slices)-1]
		s.Endpoints = append(s.Endpoints, model.Endpoint{Addr: address(i), Zone: zone(i), Ready: true, Serving: true, ZoneHints: []string{zone(i)}})
		c.target.Set.Of[address(i)] = hints.Hint{Zones: []string{zone(i)}}
	}
	return c
}

// What most writes get without a thought about steps is what they would get with one.
func TestThereIsWhereNoStepIsLeft(t *testing.T) {
	c := newCrowd()
	incoming := c.slices[9]
	if !there(c.slices, incoming, c.target.Set) || len(hints.Steps(c.slices, c.target.Set, c.target.Clients, c.target.Plan)) != 0 {
		t.Error("nothing differs, but there is something to do")
	}
	incoming.Endpoints = append([]model.Endpoint{{Addr: address(5000), Zone: "a", Ready: true}}, incoming.Endpoints...)
	current := append(append([]model.Slice{}, c.slices[:9]...), incoming)
	if !there(current, incoming, c.target.Set) {
		t.Error("an endpoint that is new needs no steps")
	}
	if got := answer(current, incoming, c.target)[address(5000)]; !got.Equal(hints.Hint{Zones: []string{"a"}}) {
		t.Errorf("the new endpoint gets %v", got)
	}
	if there(current, c.slices[0], c.target.Set) {
		t.Error("an endpoint without hints in another slice is work")
	}
	c.target.Set.Of[address(0)] = hints.Hint{Zones: []string{"b"}}
	if there(c.slices, c.slices[9], c.target.Set) {
		t.Error("a plan that changed is work")
	}
}

// An endpoint that joins a big Service must not make the API server wait.
func BenchmarkAnswer(b *testing.B) {
	for _, what := range []string{"idle write", "an endpoint joins", "another plan"} {
		b.Run(what, func(b *testing.B) {
			c := newCrowd()
			incoming := c.slices[9]
			incoming.Endpoints = append([]model.Endpoint{}, incoming.Endpoints...)
			switch what {
			case "an endpoint joins":
				incoming.Endpoints = append(incoming.Endpoints, model.Endpoint{Addr: address(5000), Zone: "a", Ready: true, Serving: true})
			case "another plan":
				for i := range 1000 {
					c.target.Set.Of[address(i)] = hints.Hint{Zones: []string{"a", "b", "c"}}
				}
			}
			p := NewPlanner(c)
			b.ReportAllocs()
			for b.Loop() {
				got, err := p.Hints(web, false, incoming)
				if err != nil || len(got) != len(incoming.Endpoints) {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}
