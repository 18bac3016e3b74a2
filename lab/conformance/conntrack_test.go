//go:build kernel

package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// recovery is how long clients of UDP wait at most for their first answer from another endpoint, in
// most cases: on a busy machine any one of them may wait for a processor.
const recovery = 100 * time.Millisecond

// burst is how long, on a busy machine, a connected socket may speak to an endpoint that is gone when
// changes come in a burst: the socket path then does not look for sockets to end all the time.
const burst = 2 * time.Second

// cycle is a situation of upstream's end-to-end tests of conntrack: somebody speaks UDP with a
// Service from one socket, while what stands behind it changes.
type cycle struct {
	name   string
	from   string
	to     func(n int) target
	change []func(*corev1.Service)
	steps  []step
}

// step is what stands behind the Service, and who answers then; nobody, if it is a way to fail.
type step struct {
	endpoints []endpoint
	port      int
	server    string
}

var cycles = []cycle{
	{name: "ClusterIP", from: "pod0", to: clusterIP, steps: replaced},
	{name: "node port", from: "stranger", to: nodeAt, change: []func(*corev1.Service){nodePort}, steps: replaced},
	{name: "node port from a pod", from: "pod0", to: nodeAt, change: []func(*corev1.Service){nodePort}, steps: replaced},
	{name: "load balancer", from: "stranger", to: balancer, change: []func(*corev1.Service){balanced}, steps: replaced},
	{name: "internalTrafficPolicy Local", from: "pod0", to: clusterIP, change: []func(*corev1.Service){internalLocal}, steps: replaced},
	{name: "client on the node", from: "node", to: clusterIP, steps: replaced},
	{name: "ready late", from: "pod0", to: clusterIP, steps: []step{
		{endpoints: []endpoint{{host: "pod2", unready: true}}, server: ""},
		{endpoints: on("pod2"), server: "pod2"},
	}},
	{name: "target port", from: "pod0", to: clusterIP, steps: []step{
		{endpoints: on("pod2"), server: "pod2"},
		{endpoints: on("pod2"), port: adminPort, server: "pod2:9090"},
		{endpoints: on("pod2"), server: "pod2"},
	}},
}

// replaced: the server is replaced by one, then there is none, then there is another, which leaves
// slowly: while it still serves it keeps its clients.
var replaced = []step{
	{endpoints: on("pod2"), server: "pod2"},
	{endpoints: on("pod3"), server: "pod3"},
	{endpoints: []endpoint{{host: "pod3", gone: true}}, server: ""},
	{endpoints: on("pod4"), server: "pod4"},
	{endpoints: []endpoint{{host: "pod4", leaving: true}, {host: "pod5"}}, server: "pod4"},
	{endpoints: []endpoint{{host: "pod4", gone: true}, {host: "pod5"}}, server: "pod5"},
}

// conversation is a cycle that is under way, with one socket. Another Service's and a pod's own
// clients stand by: nothing may happen to them, though they speak with the endpoints that go.
type conversation struct {
	cycle
	web        *corev1.Service
	socket     *client
	bystanders []*client
}

// udpCycles goes through all cycles at once, step by step.
func udpCycles(t *testing.T, s *stage) {
	var all []conversation
	for i, c := range cycles {
		for j, v6 := range []bool{false, true} {
			for k, connected := range []bool{false, true} {
				all = append(all, s.converses(t, c, 1+4*i+2*j+k, v6, connected))
			}
		}
	}
	var waits []time.Duration
	for i := range len(replaced) {
		waits = append(waits, s.nextStep(t, i, all)...)
	}
	slices.Sort(waits)
	median := waits[len(waits)/2]
	t.Logf("%d changes: from the change of objects to a client's first answer: median %s, longest %s", len(waits), median, waits[len(waits)-1])
	if median > recovery {
		t.Errorf("clients wait %s for an answer, want at most %s", median, recovery)
	}
}

func (s *stage) converses(t *testing.T, c cycle, n int, v6, connected bool) conversation {
	t.Helper()
	web, beside := svc(n, c.change...), svc(n+100)
	s.set(web, beside, s.steps(web, c.steps[0]), s.behind(beside, on("pod2")...))
	pod2 := s.host("pod2")
	direct := at("pod2 itself", udp, webPort, pod2.addrs[0].String(), pod2.addrs[1].String())
	return conversation{c, web, s.client(t, c.from, overUDP(c.to(n)), v6, connected), []*client{
		s.client(t, "pod1", overUDP(clusterIP(n+100)), v6, true),
		s.client(t, "pod1", overUDP(clusterIP(n+100)), v6, false),
		s.client(t, "pod1", direct, v6, true),
	}}
}

// nextStep changes what stands behind every Service that has such a step. It returns how long each
// client waited for its first answer, programming included.
func (s *stage) nextStep(t *testing.T, i int, all []conversation) (waits []time.Duration) {
	t.Helper()
	var objects []any
	for _, c := range all {
		if i < len(c.steps) {
			objects = append(objects, s.steps(c.web, c.steps[i]))
		}
	}
	begin := time.Now()
	s.set(objects...)
	took := time.Since(begin)
	for _, c := range all {
		when := fmt.Sprintf("%s: step %d", c.name, i)
		switch {
		case i >= len(c.steps):
		case c.steps[i].server == "":
			s.lost(t, c.socket, when)
		default:
			begin := time.Now()
			s.recovers(t, c.socket, when, c.steps[i].server)
			waits = append(waits, took+time.Since(begin))
		}
		for _, b := range c.bystanders {
			b.hears(when, "pod2")
		}
	}
	return waits
}

func (s *stage) steps(web *corev1.Service, step step) any {
	all := s.behind(web, step.endpoints...)
	if step.port != 0 {
		for _, slice := range all {
			slice.Ports[1].Port = ptr(int32(step.port))
		}
	}
	return all
}

// recovers wants the very next datagram answered by the server. A connected socket of the socket
// path is ended instead, at once or soon: it hears so, connects again, and is answered.
func (s *stage) recovers(t *testing.T, c *client, when, server string) {
	t.Helper()
	for begin := time.Now(); ; {
		got := c.say(patienceForAnswers)
		if got.Error != "" && got.Error != silence && s.ends(c) {
			c.again()
			got = c.say(patienceForAnswers)
		}
		name := s.named(got.Server, netip.AddrPort{})
		if got.Error == "" && name == server {
			return
		}
		if got.Error != "" || !s.ends(c) || time.Since(begin) > burst {
			t.Errorf("%s: %s: %q %s, want %s", when, c, got.Error, name, server)
			return
		}
	}
}

// lost wants no answer; from a socket that has to be ended, soon.
func (s *stage) lost(t *testing.T, c *client, when string) {
	t.Helper()
	for begin := time.Now(); ; {
		got := c.say(patienceForSilence)
		if got.Error != "" {
			return
		}
		if !s.ends(c) || time.Since(begin) > burst {
			t.Errorf("%s: %s: %s answers, want nobody", when, c, got.Server)
			return
		}
	}
}

// ends tells whether the socket is one that is ended when its endpoint is gone.
func (s *stage) ends(c *client) bool { return c.connected && s.atSocket(c.from.name, c.to) }
