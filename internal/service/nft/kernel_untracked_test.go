//go:build kernel

package nft_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// theRanges have all pods and nodes of a world, and nobody else.
var theRanges = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fd00:192:168::/48")}

// newUntracked lets direct flows get by conntrack.
func newUntracked(t testing.TB, w world) dataplane {
	door := kernelnft.Dial(0)
	t.Cleanup(func() { door.Close() })
	return dataplane{t, w, nft.New(door, conntrack.Conn{}, nft.Options{Untracked: theRanges})}
}

// strangerIP is in no range.
const strangerIP = "198.18.0.1"

func (s stack) v6() bool { return netip.MustParseAddr(s.node).Is6() }

func (s stack) of(four string) string {
	if s.v6() {
		return six(four)
	}
	return four
}

// askAs asks from one of the addresses that a namespace has.
func (s stack) askAs(ns *netns.NS, network, from, to string) (answer, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: dialTimeout}
		if ip := net.ParseIP(from); network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: ip}
		} else {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		}
		c, err = d.Dial(network, to)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return answer{}, err
	}
	if network == "udp" {
		return askOn(c)
	}
	return read(c)
}

// tracked returns how many flows between the two the node tracks, whichever began.
func (s stack) tracked(t *testing.T, one, other string) int {
	t.Helper()
	family := netlink.InetFamily(unix.AF_INET)
	if s.v6() {
		family = unix.AF_INET6
	}
	n := 0
	s.in(t, s.world.node, func() error {
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		for _, f := range list {
			from, to := f.Forward.SrcIP.String(), f.Reverse.SrcIP.String()
			if from == one && to == other || from == other && to == one {
				n++
			}
		}
		return err
	})
	return n
}

// table is the family's, as nft has it.
func (s stack) table() kernelnft.Table {
	if s.v6() {
		return kernelnft.Table{Family: kernelnft.IPv6, Name: "zonewise"}
	}
	return table4
}

func (s stack) trackedSet(t *testing.T) string {
	t.Helper()
	return s.nft(t, append([]string{"list", "set"}, append(strings.Fields(s.table().String()), "tracked")...)...)
}

// everybody asks at every kind of address, and returns what each got.
func (s stack) everybody(t *testing.T, policies []func(*model.Service), d dataplane) map[string]answer {
	t.Helper()
	clients := []struct {
		name, ip string
		ns       *netns.NS
	}{
		{"a pod", s.podA, s.world.podA}, {"the endpoint itself or its neighbour", s.podB, s.world.podB}, {"the node", s.node, s.world.node},
		{"another node", s.out, s.world.out}, {"a remote pod", s.other, s.world.out}, {"a stranger", s.of(strangerIP), s.world.out},
	}
	out := map[string]answer{}
	for i, change := range policies {
		for _, e := range []model.Endpoint{endpoint(s.podB, "n1"), endpoint(s.remote, "n2")} {
			for _, p := range []struct {
				protocol model.Protocol
				network  string
			}{{model.TCP, "tcp"}, {model.UDP, "udp"}} {
				m := svc{name: "web", protocol: p.protocol, ip: s.cluster, nodePort: 30080, endpoints: []model.Endpoint{e}, change: func(m *model.Service) {
					m.Type = model.LoadBalancer
					m.ExternalIPs = []netip.Addr{netip.MustParseAddr(s.external)}
					if change != nil {
						change(m)
					}
				}}
				d.apply(map[model.Name][]service.Frontend{m.id(): m.plan()})
				for _, c := range clients {
					for _, to := range []string{at(s.cluster, 80), at(s.external, 80), at(s.node, 30080), target(e.Addr.String())} {
						got, err := s.askAs(c.ns, p.network, c.ip, to)
						if err != nil {
							got.server = "nobody"
							if errors.Is(err, syscall.ECONNREFUSED) {
								got.server = "refused"
							}
						}
						out[fmt.Sprintf("policy %d, %s, %s, endpoint %s, to %s", i, p.network, c.name, e.Addr, to)] = got
					}
				}
			}
		}
	}
	return out
}

// inRange makes the external address one of the ranges, and gives the world a stranger.
func (s stack) inRange(t *testing.T) stack {
	t.Helper()
	s.external = s.of("192.168.9.7")
	s.in(t, s.world.out, func() error {
		l, err := linkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(l.via(s.external, s.node), address("lo", alone(s.of(strangerIP)).String(), ""))
	})
	for _, u := range []struct {
		ns *netns.NS
		ip string
	}{{s.world.podB, s.podB}, {s.world.out, s.remote}} {
		s.serveUDP(t, u.ns, target(u.ip))
	}
	return s
}

// Whoever asks whatever, the answers are those that come when everything is tracked.
func TestUntrackedChangesNoAnswer(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		s = s.inRange(t)
		policies := []func(*model.Service){nil, func(m *model.Service) { m.Affinity = time.Hour }}
		want := s.everybody(t, policies, newDataplane(t, s.world))
		got := s.everybody(t, policies, newUntracked(t, s.world))
		for what, w := range want {
			if got[what] != w {
				t.Errorf("%s: %v, want %v", what, got[what], w)
			}
			if w.client == "" {
				t.Errorf("%s: %v even when all is tracked: the test tests nothing", what, w)
			}
		}
	})
}

// Local endpoints see who asks from outside, whether or not that is in a range.
func TestUntrackedExternalLocal(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		s = s.inRange(t)
		d := newUntracked(t, s.world)
		m := svc{name: "web", ip: s.cluster, nodePort: 30080, endpoints: []model.Endpoint{endpoint(s.podA, "n1")},
			change: func(m *model.Service) { m.ExternalLocal = true }}
		d.apply(map[model.Name][]service.Frontend{m.id(): m.plan()})
		for _, from := range []string{s.out, s.other, s.of(strangerIP)} {
			for range 3 {
				got, err := s.askAs(s.world.out, "tcp", from, at(s.node, 30080))
				if must(t, got, err) != (answer{target(s.podA), from}) {
					t.Errorf("from %s: %v", from, got)
				}
			}
		}
	})
}

// Direct flows are not tracked, those that are translated are, and so is from then on all that their
// client does.
func TestUntracked(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		s = s.inRange(t)
		d := newUntracked(t, s.world)
		web := svc{name: "web", ip: s.cluster, nodePort: 30080, endpoints: []model.Endpoint{endpoint(s.podB, "n1")}}
		d.apply(map[model.Name][]service.Frontend{web.id(): web.plan()})

		direct := func(to string) net.Conn {
			t.Helper()
			c, err := s.dial(s.world.podA, "tcp", target(to), dialTimeout)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if got, err := read(c); must(t, got, err) != (answer{target(to), s.podA}) {
				t.Errorf("directly: %v", got)
			}
			return c
		}
		talking, closing := direct(s.podB), direct(s.remote)
		if a, b := s.tracked(t, s.podA, s.podB), s.tracked(t, s.podA, s.remote); a+b != 0 {
			t.Errorf("%d and %d direct flows are tracked", a, b)
		}
		// Nobody listens: an error comes back although nothing knows of the flow.
		if got, err := s.askUDP(s.world.podA, at(s.remote, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("to a closed port: %v %v", got, err)
		}
		if list := s.trackedSet(t); strings.Contains(list, s.podA) {
			t.Errorf("the client is entered: %s", list)
		}

		got, err := s.ask(s.world.podA, at(s.cluster, 80))
		if must(t, got, err) != (answer{target(s.podB), s.podA}) {
			t.Errorf("through the Service: %v", got)
		}
		if n := s.tracked(t, s.podA, s.podB); n != 1 {
			t.Errorf("%d flows are tracked, want the one that is translated", n)
		}
		if list := s.trackedSet(t); !strings.Contains(list, s.podA+" timeout 7d") || strings.Contains(list, s.podB) {
			t.Errorf("who is tracked: %s", list)
		}
		// What was under way goes on, and what ends now ends.
		if err := closing.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := closing.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a direct connection that was not tracked when it began is not closed: %v", err)
		}
		if _, err := talking.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		if line, err := read(talking); err != nil || line.server != "hello" {
			t.Errorf("a direct connection that was not tracked when it began: %v %v", line, err)
		}
		if n := s.tracked(t, s.podA, s.podB); n != 2 {
			t.Errorf("%d flows are tracked, want the direct one that goes on, too", n)
		}
		direct(s.podB)
		readable(t, s.nft(t, "list", "ruleset"))
	})
}

// The option comes while connections are under way, the table is lost, and the option goes.
func TestUntrackedComesAndGoes(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		s = s.inRange(t)
		web := svc{name: "web", ip: s.cluster, endpoints: []model.Endpoint{endpoint(s.podB, "n1")}}
		want := map[model.Name][]service.Frontend{web.id(): web.plan()}
		newDataplane(t, s.world).apply(want)
		c, err := s.dial(s.world.podA, "tcp", at(s.cluster, 80), 5*dialTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := read(c); err != nil {
			t.Fatal(err)
		}
		goesOn := func(step string) {
			t.Helper()
			if list := s.trackedSet(t); !strings.Contains(list, s.podA) {
				t.Errorf("%s: the client is not entered: %s", step, list)
			}
			if _, err := c.Write([]byte(step + "\n")); err != nil {
				t.Fatal(err)
			}
			if line, err := read(c); err != nil || line.server != step {
				t.Errorf("%s: %v %v", step, line, err)
			}
		}
		d := newUntracked(t, s.world)
		d.apply(want)
		goesOn("on")

		s.nft(t, append([]string{"delete", "table"}, strings.Fields(s.table().String())...)...)
		s.in(t, s.world.node, func() error {
			repaired, err := d.applier.Audit()
			if !repaired {
				t.Error("nothing was repaired")
			}
			return err
		})
		goesOn("repaired")

		// The next agent finds all as it should be.
		again := newUntracked(t, s.world)
		again.apply(want)
		goesOn("adopted")
		got, err := s.ask(s.world.podB, target(s.remote))
		if must(t, got, err).client != s.podB || s.tracked(t, s.podB, s.remote) != 0 {
			t.Errorf("adopted: %v, tracked", got)
		}

		newDataplane(t, s.world).apply(want)
		if list := s.nft(t, "list", "ruleset"); strings.Contains(list, "notrack") || strings.Contains(list, "chain untracked") || strings.Contains(list, "@tracked") {
			t.Errorf("the option has gone, its rules have not:\n%s", list)
		}
		if got, err := s.ask(s.world.podB, target(s.remote)); must(t, got, err).client != s.podB || s.tracked(t, s.podB, s.remote) != 1 {
			t.Errorf("without: %v, not tracked", got)
		}
		goesOn("off")
	})
}

// When nobody more can be entered, clients are masqueraded: the answers come to the node.
func TestUntrackedIsFull(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newUntracked(t, w)
	web := svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(remoteIP, "n2")}}
	d.apply(map[model.Name][]service.Frontend{web.id(): web.plan()})
	set := kernelnft.Set{Name: "tracked", Key: []kernelnft.Field{kernelnft.Addr}}
	b := kernelnft.NewBatch(table4)
	for i := range uint32(65536) {
		key := string(binary.BigEndian.AppendUint32(nil, 10<<24+i))
		b.Add(set, kernelnft.Element{Key: key, Expires: time.Hour})
	}
	door := kernelnft.Dial(w.node.FD())
	defer door.Close()
	if err := door.Commit(b); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := w.ask(w.podA, "10.100.0.7:80"); must(t, got, err) != (answer{target(remoteIP), nodeIP}) {
			t.Errorf("with no room: %v, want it masqueraded", got)
		}
	}
}
