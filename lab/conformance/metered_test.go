//go:build kernel

package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/lab/rig"
)

// metered is a stage whose node counts, too.
type metered struct {
	*stage
	counter *bpf.Counter
	before  meter.Reading
}

func newMetered(t *testing.T) *metered {
	t.Helper()
	return &metered{stage: newStage(t, bySocket)}
}

// count begins to count.
func (m *metered) count(t *testing.T) {
	t.Helper()
	err := m.world.Node.Do(func() (err error) {
		m.counter, err = bpf.New(bpf.Options{
			Pins: filepath.Join(m.world.BPF, "meter"), Sockets: filepath.Join(m.world.BPF, "zonewise", bpf.SocketLayout),
			Namespaces: m.world.Namespaces, PodInterface: "eni",
		})
		if err == nil {
			err = m.counter.Attach()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.counter.Close() })
	m.since(t)
}

// since is what was counted since it was asked for last, without messages of the machines themselves.
func (m *metered) since(t *testing.T) (out []meter.Delta) {
	t.Helper()
	now, err := m.counter.Read()
	if err != nil {
		t.Fatal(err)
	}
	deltas, _ := meter.Deltas(m.before, now)
	m.before = now
	for _, d := range deltas {
		if d.Protocol == model.TCP || d.Protocol == model.UDP {
			out = append(out, d)
		}
	}
	return out
}

// begin leaves behind what was before. A UDP socket may get the port of an earlier one, and for the kernel it
// would go on with what that one began.
func (m *metered) begin(t *testing.T) {
	t.Helper()
	filter := &netlink.ConntrackFilter{}
	err := filter.AddProtocol(unix.IPPROTO_UDP)
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		err = errors.Join(err, m.world.Node.Do(func() error {
			_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
			return err
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.since(t)
}

// counted fails unless all that a host began since is to one address, so many connections.
func (m *metered) counted(t *testing.T, what string, client netip.Addr, dialled netip.AddrPort, times int) {
	t.Helper()
	connections := uint64(0)
	for deadline := time.Now().Add(patienceForAnswers); ; {
		for _, d := range m.since(t) {
			if d.Client != client {
				continue
			}
			to := d.Dialled
			if !to.IsValid() {
				to = d.Server
			}
			if to != dialled {
				t.Errorf("%s: counted as dialled %v (server %v): %+v", what, d.Dialled, d.Server, d.FlowCount)
				return
			}
			connections += d.Connections
		}
		if connections == uint64(times) {
			return
		}
		if time.Now().After(deadline) || connections > uint64(times) {
			t.Errorf("%s: %d connections, want %d", what, connections, times)
			return
		}
	}
}

// shared are two Services with the same endpoints, and these endpoints themselves.
func (m *metered) shared() []target {
	one, two := svc(1), svc(2)
	m.set(one, m.behind(one, on("pod2 remote node")...), two, m.behind(two, on("pod2 remote node")...))
	out := []target{clusterIP(1), clusterIP(2)}
	for _, name := range []string{"pod2", "remote", "node"} {
		h := m.host(name)
		out = append(out, at(name, tcp, webPort, h.addrs[0].String(), h.addrs[1].String()))
	}
	return out
}

// Whoever calls from this node is counted by what he dialled, though what he dialled has the same
// endpoints, and nothing in packets tells.
func TestMeteredByWhatWasDialled(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("pods known %v", known), func(t *testing.T) {
			m := newMetered(t)
			targets := m.shared()
			if known {
				m.tick()
			}
			m.count(t)
			const times = 6
			led := m.led()
			for range 2 {
				for _, v6 := range []bool{false, true} {
					for _, from := range []string{"pod0", "pod1", "node"} {
						for _, to := range targets {
							for _, to := range []target{to, overUDP(to)} {
								if from == to.what || from+" by UDP" == to.what {
									continue // its loopback
								}
								what := fmt.Sprintf("%s to %s %v", from, to.what, to.addr(v6))
								m.begin(t)
								m.ask(t, from, to, v6, times, patienceForAnswers)
								m.counted(t, what, m.host(from).addr(v6), to.addr(v6), times)
								if to.protocol == udp {
									m.begin(t)
									c := m.client(t, from, to, v6, false)
									c.say(patienceForAnswers)
									c.say(patienceForAnswers)
									m.counted(t, what+", unconnected", m.host(from).addr(v6), to.addr(v6), 1)
								}
							}
						}
					}
				}
			}
			if m.led() == led {
				t.Error("the socket path led nobody")
			}
		})
	}
}

// Who connects by UDP and sends later is counted by what he dialled, whatever others dialled meanwhile.
func TestMeteredLater(t *testing.T) {
	m := newMetered(t)
	one := svc(1)
	two := svc(2)
	m.set(one, m.behind(one, on("pod2")...), two, m.behind(two, on("pod2")...))
	m.tick()
	m.count(t)
	pod := m.host("pod2")
	direct := overUDP(at("pod2", tcp, webPort, pod.addrs[0].String(), pod.addrs[1].String()))
	all := []target{overUDP(clusterIP(1)), overUDP(clusterIP(2)), direct}
	for _, v6 := range []bool{false, true} {
		for i, to := range all {
			for j, other := range all {
				if i == j {
					continue
				}
				m.begin(t)
				c := m.client(t, "pod0", to, v6, true)
				m.ask(t, "pod1", other, v6, 1, patienceForAnswers)
				c.say(patienceForAnswers)
				m.counted(t, to.what+" before "+other.what, m.host("pod0").addr(v6), to.addr(v6), 1)
			}
		}
	}
}

// Who was led before the node counted is counted by what he dialled.
func TestMeteredElders(t *testing.T) {
	m := newMetered(t)
	targets := m.shared()
	m.tick()
	type elder struct {
		*client
		want netip.AddrPort
	}
	var elders []elder
	for _, v6 := range []bool{false, true} {
		for _, from := range []string{"pod0", "node"} {
			for _, to := range targets[:2] {
				for _, to := range []target{to, overUDP(to)} {
					c := m.client(t, from, to, v6, true)
					c.say(patienceForAnswers)
					elders = append(elders, elder{c, to.addr(v6)})
				}
			}
		}
	}
	m.count(t)
	for _, e := range elders {
		m.since(t)
		e.say(patienceForAnswers)
		m.counted(t, e.String(), e.from.addr(e.v6), e.want, 0)
		if m.before.Totals == nil {
			t.Fatal("nothing is counted")
		}
	}
	if bytes := m.total(); bytes == 0 {
		t.Error("nothing is counted")
	}
}

// total is how many bytes were counted of what was dialled at the Services.
func (m *metered) total() (bytes uint64) {
	for k, v := range m.before.Totals {
		if k.Dialled.IsValid() && k.Client != netip.MustParseAddr(rig.OutsideV4) {
			bytes += v.Bytes()
		}
	}
	return bytes
}
