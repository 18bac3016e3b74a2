//go:build kernel

package unbroken

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// repairLimit is how long damage may last: the agent looks every 2 s, on a machine that may be busy.
const repairLimit = 4 * time.Second

// ofPackets are the sets that packets fill. Nobody says what they should hold.
var ofPackets = []string{"connections", "traffic", "sticky"}

// state is what is programmed in the node's kernel, by where it is: chains with their rules, elements
// of sets, entries of maps, links.
type state map[string][]string

// programmed reads it. In the socket path an entry is its key: numbers in values may become others.
func (s *stage) programmed() (state, error) {
	door := nft.Dial(s.world.Node.FD())
	defer door.Close()
	out := state{}
	for _, t := range tables {
		contents, there, err := door.Read(t)
		if err != nil {
			return nil, err
		}
		if !there {
			out[t.String()] = []string{"missing"}
		}
		for chain, rules := range contents.Chains {
			out[t.String()+" chain "+chain] = rules
		}
		for set := range contents.Sets {
			if slices.Contains(ofPackets, set) {
				continue
			}
			list, err := door.Elements(t, nft.Set{Name: set})
			if err != nil {
				return nil, err
			}
			all := []string{}
			for _, e := range list {
				all = append(all, fmt.Sprintf("%x: %x %s", e.Key, e.Data, e.Verdict))
			}
			slices.Sort(all)
			out[t.String()+" set "+set] = all
		}
	}
	for _, name := range socketMaps {
		for _, pin := range s.pinned(name) {
			all, err := entries(pin)
			if err != nil {
				return nil, err
			}
			out[pin] = []string{fmt.Sprint(len(all))}
		}
	}
	for _, pin := range s.links() {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			return nil, err
		}
		info, err := l.Info()
		l.Close()
		if err != nil {
			return nil, err
		}
		out[pin] = []string{fmt.Sprint(info.Cgroup().CgroupId)}
	}
	return out, nil
}

// socketMaps are those that the agent fills.
var socketMaps = []string{"frontends", "slots", "kept"}

func (s *stage) links() []string {
	all, _ := filepath.Glob(filepath.Join(s.pins(), "links", "*"))
	return all
}

// as tells how the kernel differs from a state.
func (s *stage) as(want state) error {
	got, err := s.programmed()
	if err != nil {
		return err
	}
	var wrong []string
	for at := range maps.Keys(want) {
		if !slices.Equal(got[at], want[at]) {
			wrong = append(wrong, at)
		}
	}
	for at := range got {
		if _, ok := want[at]; !ok {
			wrong = append(wrong, at)
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("not as it was: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// settled is the state in which the kernel stays for longer than the agent takes to look at it.
func (s *stage) settled() state {
	s.Helper()
	var last state
	begin := time.Now()
	until(s.T, "nothing changes any more", soon, func() error {
		now, err := s.programmed()
		if err != nil || last == nil || s.as(last) != nil {
			last, begin = now, time.Now()
			return fmt.Errorf("it has changed, %v", err)
		}
		if time.Since(begin) < time.Second {
			return fmt.Errorf("not long enough")
		}
		return nil
	})
	return last
}

// works tells whether new connections do, in both paths: nobody leads this process's sockets.
func (s *stage) works() error {
	for _, v6 := range []bool{false, true} {
		for _, protocol := range []string{"tcp", "udp"} {
			for _, n := range []int{steadily, changes, sticky} {
				if err := s.answers(s.world.Pods[0].NS, protocol, virtual(n, v6)); err != nil {
					return err
				}
			}
			if err := s.answers(s.world.Outside, protocol, open(steadily, v6)); err != nil {
				return err
			}
		}
	}
	return nil
}

// damage is something that somebody does to the kernel.
type damage struct {
	name string
	path string // that has to be repaired
	do   func(*stage)
}

func (s *stage) nft(args ...string) { s.onNode("nft", args...) }

// takeElements deletes an element of a set in both tables, and tells whether there was one.
func (s *stage) takeElements(set string) (took bool) {
	s.Helper()
	door := nft.Dial(s.world.Node.FD())
	defer door.Close()
	for _, t := range tables {
		list, there, err := s.elements(door, t, set)
		if err != nil {
			s.Fatal(err)
		}
		if !there || len(list) == 0 {
			continue
		}
		b := nft.NewBatch(t)
		b.Delete(nft.Set{Name: set, Verdicts: list[0].Verdict != ""}, list[0])
		if err := door.Commit(b); err != nil {
			s.Fatal(err)
		}
		took = true
	}
	return took
}

// takeEntry deletes an entry of a map of the socket path.
func (s *stage) takeEntry(name string) {
	s.Helper()
	for _, pin := range s.pinned(name) {
		m, err := ebpf.LoadPinnedMap(pin, nil)
		if err != nil {
			s.Fatal(err)
		}
		defer m.Close()
		var key []byte
		if err := m.NextKey(nil, &key); err != nil {
			s.Fatalf("%s: %v", pin, err)
		}
		if err := m.Delete(key); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *stage) eachLink(do func(pin string, l link.Link) error) {
	s.Helper()
	for _, pin := range s.links() {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			s.Fatal(err)
		}
		if err := do(pin, l); err != nil {
			s.Fatalf("%s: %v", pin, err)
		}
		l.Close()
	}
}

const (
	byNFT    = "nft"
	bySocket = "socket"
)

// damages are what is done where the agent has only the one path, or both.
func damages(kind peer.Kind) []damage {
	out := []damage{
		{"flush ruleset", byNFT, func(s *stage) { s.nft("flush", "ruleset") }},
		{"delete table ip6", byNFT, func(s *stage) { s.nft("delete", "table", "ip6", "zonewise") }},
	}
	if kind == peer.ZonewiseNFT {
		out = append(out, damage{"flush a chain", byNFT, func(s *stage) { s.nft("flush", "chain", "ip", "zonewise", "services") }})
		for _, set := range []string{"services", "inside", "backends", "unreachable", "cluster-ips", "hairpin", "sources", "groups", "affinity", "eligible", "eligible-inside", "ways", "outcomes"} {
			out = append(out, damage{"an element of " + set, byNFT, func(s *stage) {
				if !s.takeElements(set) {
					s.Errorf("nothing is in %s", set)
				}
			}})
		}
		return out
	}
	for _, name := range socketMaps {
		out = append(out, damage{"an entry of " + name, bySocket, func(s *stage) { s.takeEntry(name) }},
			damage{"the pin of " + name, bySocket, func(s *stage) {
				for _, pin := range s.pinned(name) {
					if err := os.Remove(pin); err != nil {
						s.Fatal(err)
					}
				}
			}})
	}
	return append(out,
		damage{"links detached", bySocket, func(s *stage) {
			s.eachLink(func(_ string, l link.Link) error { return l.Detach() })
		}},
		damage{"pins of links", bySocket, func(s *stage) {
			s.eachLink(func(pin string, _ link.Link) error { return os.Remove(pin) })
		}})
}

// TestRepair: what somebody changes is as it was within the time, counted, and said in the log.
func TestRepair(t *testing.T) {
	for _, kind := range []peer.Kind{peer.Zonewise, peer.ZonewiseNFT} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel() // it is waiting for the most part
			s := newStage(t)
			agent := s.start(kind, "")
			agent.ready()
			want := s.settled()
			if err := s.works(); err != nil {
				t.Fatal(err)
			}
			var slowest time.Duration
			for _, d := range damages(kind) {
				before := agent.repairs(d.path)
				d.do(s)
				if s.as(want) == nil {
					t.Errorf("%s: that was no damage, or it did not last", d.name)
				}
				took := until(t, d.name, repairLimit, func() error { return s.as(want) })
				t.Logf("%s: repaired after %v", d.name, took.Round(time.Millisecond))
				slowest = max(slowest, took)
				if err := s.works(); err != nil {
					t.Errorf("%s: after that: %v", d.name, err)
				}
				until(t, d.name+": counted", soon, func() error {
					if n := agent.repairs(d.path) - before; n != 1 {
						return fmt.Errorf("%d repairs", n)
					}
					return nil
				})
			}
			t.Logf("slowest repair: %v", slowest.Round(time.Millisecond))
			if n := strings.Count(agent.everything(), `msg="somebody changed the service table; repaired"`); n != len(damages(kind)) {
				t.Errorf("the log speaks of %d repairs:\n%s", n, agent.said())
			}
		})
	}
}

// everything is the program's log.
func (p *program) everything() string {
	p.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.Fatal(err)
	}
	return string(text)
}

// TestDamageWithoutAnAgent: an agent that starts puts right what was changed while there was none.
func TestDamageWithoutAnAgent(t *testing.T) {
	for _, kind := range []peer.Kind{peer.Zonewise, peer.ZonewiseNFT} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel() // it is waiting for the most part
			s := newStage(t)
			agent := s.start(kind, "")
			agent.ready()
			want := s.settled()
			agent.kill()
			for _, set := range []string{"services", "backends", "cluster-ips", "unreachable"} {
				s.takeElements(set)
			}
			if kind == peer.Zonewise {
				for _, name := range socketMaps {
					s.takeEntry(name)
				}
				s.eachLink(func(_ string, l link.Link) error { return l.Detach() })
			}
			if s.as(want) == nil {
				t.Error("that was no damage")
			}
			agent = s.start(kind, "")
			took := agent.ready()
			if err := s.as(want); err != nil {
				t.Error(err)
			}
			if err := s.works(); err != nil {
				t.Error(err)
			}
			t.Logf("ready %v after its start, and all is as it was", took.Round(time.Millisecond))
		})
	}
}

// TestNobodyToAsk: without an API server an agent that starts leaves everything as it is.
func TestNobodyToAsk(t *testing.T) {
	for _, kind := range []peer.Kind{peer.Zonewise, peer.ZonewiseNFT} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel() // it is waiting for the most part
			s := newStage(t)
			agent := s.start(kind, "")
			agent.ready()
			want := s.settled()
			s.hangUp()
			agent.kill()
			agent = s.start(kind, "")
			for range 4 { // the agent looks at the kernel every 2 s, if it does
				pause(time.Second)
				if err := s.as(want); err != nil {
					t.Error(err)
				}
				if err := s.works(); err != nil {
					t.Error(err)
				}
			}
			if _, err := agent.get("http://127.0.0.1:9470/healthz"); err == nil {
				t.Error("an agent that knows of nothing says that it is ready")
			}
			// While nobody could be asked, an endpoint went.
			_, changing := serversOf(s.world)
			objects := cluster(s.world)
			for i, o := range objects {
				for _, e := range endpoints(changes, changing[1:]...) {
					if sameName(o, e) {
						objects[i] = e
					}
				}
			}
			s.listen(objects...)
			agent.ready()
			door := nft.Dial(s.world.Node.FD())
			defer door.Close()
			if leads, err := s.leadsTo(door, changing[0]); err != nil || leads {
				t.Errorf("leads to the endpoint that has gone: %v, %v", leads, err)
			}
			if err := s.works(); err != nil {
				t.Error(err)
			}
		})
	}
}
