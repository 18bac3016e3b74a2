//go:build kernel

package conformance

import (
	"fmt"
	"sync"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/nft"
)

func TestState(t *testing.T) {
	onEachPath(t, []row{
		{"33 UDP follows its Service from endpoint to endpoint", udpCycles},
		{"34 connections outlive every change", connectionsLive},
		{"35 packets that conntrack makes no sense of end nobody's connection", invalid},
		{"36 restarts and damage", restarts},
	})
}

// clients opens a connection from everywhere to every kind of address of Services 1 (policy
// Cluster) and 2 (Local).
func (s *stage) clients(t *testing.T) map[*client]string {
	t.Helper()
	out := map[*client]string{}
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1, 2} {
			for _, to := range everyKind(n) {
				for _, from := range []string{"pod0", "pod2", "node", "stranger", "remote"} {
					c := s.client(t, from, to, v6, true)
					out[c] = s.named(c.say(patienceForAnswers).Server, c.to.addr(v6))
				}
			}
		}
	}
	return out
}

func connectionsLive(t *testing.T, s *stage) {
	cluster, local := svc(1, balanced, external), svc(2, balanced, external, externalLocal, internalLocal)
	set := func(endpoints ...endpoint) { s.set(s.behind(cluster, endpoints...), s.behind(local, endpoints...)) }
	s.set(cluster, local)
	set(on("pod2 pod3 remote")...)
	all := s.clients(t)
	check := func(when string) {
		t.Helper()
		for c, server := range all {
			c.hears(when, server)
		}
	}
	check("at first")
	set(on("pod2 pod3 pod4 remote other")...)
	check("more endpoints")
	set(endpoint{host: "pod2", leaving: true}, endpoint{host: "pod3", leaving: true}, endpoint{host: "remote", leaving: true}, endpoint{host: "pod4"})
	check("they terminate")
	set(on("pod4 other")...)
	check("they are gone for the API, and still answer")
	set()
	check("nobody is there")
	set(on("pod5")...)
	s.set(svc(1, balanced, external, externalLocal, internalLocal), svc(2, balanced, external))
	check("policies are exchanged")
	s.set(svc(1, balanced, external, sticky(long)), svc(2))
	check("affinity, and another type")
	s.remove(cluster, local)
	check("the Services are deleted")

	t.Run("rolling update", rolling(s))
}

// rolling replaces endpoints one after the other, as a Deployment does, while everybody connects.
func rolling(s *stage) func(*testing.T) {
	return func(t *testing.T) {
		cluster, local := svc(3, balanced), svc(4, balanced, externalLocal)
		pods := []string{"pod2", "pod3", "pod4", "pod5"}
		set := func(e ...endpoint) { s.set(s.behind(cluster, e...), s.behind(local, e...)) }
		s.set(cluster, local)
		set(on("pod2")...)
		done := make(chan struct{})
		var clients sync.WaitGroup
		for _, from := range []string{"pod0", "stranger"} {
			clients.Go(func() {
				for {
					for _, to := range []target{clusterIP(3), balancer(3), nodeAt(3), balancer(4), nodeAt(4)} {
						for _, v6 := range []bool{false, true} {
							for _, o := range s.ask(t, from, to, v6, 5, patienceForAnswers) {
								if o.Error != "" {
									t.Errorf("%s to %s: %s", from, to.what, o.Error)
								}
							}
						}
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		for i := range 16 {
			old, young := pods[i%4], pods[(i+1)%4]
			set(endpoint{host: old}, endpoint{host: young, unready: true})
			set(on(old + " " + young)...)
			set(endpoint{host: old, leaving: true}, endpoint{host: young})
			set(endpoint{host: old, gone: true}, endpoint{host: young})
			set(endpoint{host: young})
		}
		close(done)
		clients.Wait()
	}
}

func restarts(t *testing.T, s *stage) {
	one, two := svc(1, balanced, external), svc(2, balanced, external)
	s.set(one, two, s.behind(one, on("pod2 remote")...), s.behind(two, on("pod3")...))
	all := s.clients(t)
	check := func(when string) {
		t.Helper()
		for c, server := range all {
			c.hears(when, server)
		}
		for _, from := range []string{"pod0", "stranger"} {
			s.reachAll(t, from, balancer(1), "pod2 remote", masked)
			s.reachAll(t, from, nodeAt(2), "pod3", masked)
		}
	}
	check("at first")
	s.start(nft.Options{})
	check("a new agent that has heard nothing yet")
	name := model.Name{Namespace: one.Namespace, Name: one.Name}
	s.each(func(a applier) error {
		return a.Apply(map[model.Name][]service.Frontend{name: s.plan(name)}, false)
	})
	check("it has heard of one Service alone")
	s.apply()
	check("it has heard of all")
	s.each(func(a applier) error {
		if repaired, err := a.Audit(); repaired || err != nil {
			return fmt.Errorf("repaired what was whole: %t, %w", repaired, err)
		}
		return nil
	})

	for _, damage := range [][]string{
		{"delete", "table", "ip", "zonewise"},
		{"delete", "table", "ip6", "zonewise"},
		{"flush", "table", "ip", "zonewise"},
		{"flush", "ruleset"},
	} {
		if out, err := s.world.Command(s.world.Node, "nft", damage...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", damage, err, out)
		}
		repaired := false
		s.each(func(a applier) error {
			r, err := a.Audit()
			repaired = repaired || r
			return err
		})
		if !repaired {
			t.Errorf("%v: nothing was repaired", damage)
		}
		check(fmt.Sprint(damage))
	}
}
