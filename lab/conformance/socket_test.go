//go:build kernel

package conformance

import (
	"net/netip"
	"testing"
	"time"
)

// client is a socket of a host that stays open.
type client struct {
	t         *testing.T
	s         *stage
	from      host
	to        target
	v6        bool
	connected bool
	number    int
	port      uint16 // its own, once it is known
}

// client opens a socket, connected or, by UDP, not. It is closed when the test ends.
func (s *stage) client(t *testing.T, from string, to target, v6, connected bool) *client {
	t.Helper()
	c := &client{t: t, s: s, from: s.host(from), to: to, v6: v6, connected: connected || to.protocol == tcp}
	p := c.probe("open")
	if !c.from.inside {
		p.Source = c.from.addr(v6)
	}
	got := c.do(p)
	if got.Outcomes[0].Error != "" {
		t.Fatalf("%s to %s (%s): %s", from, to.what, to.addr(v6), got.Outcomes[0].Error)
	}
	c.number = got.Socket
	t.Cleanup(func() { c.do(c.probe("close")) })
	return c
}

func (c *client) probe(do string) probe {
	return probe{Do: do, Space: c.from.ns.Path(), Protocol: c.to.protocol, To: c.to.addr(c.v6), Connect: c.connected, Socket: c.number, Patience: patienceForAnswers}
}

func (c *client) do(p probe) reply {
	c.t.Helper()
	got, err := c.s.probes[c.from.inside].do(p)
	if err != nil {
		c.t.Fatalf("%s: %v", c, err)
	}
	return got
}

func (c *client) String() string {
	sort := "unconnected"
	if c.connected {
		sort = "connected"
	}
	return sort + " socket of " + c.from.name + " to " + c.to.what + " " + c.to.addr(c.v6).String()
}

// say sends something, and returns what came of it. The socket's own port never changes.
func (c *client) say(patience time.Duration) outcome {
	c.t.Helper()
	p := c.probe("send")
	p.Patience = patience
	got := c.do(p).Outcomes[0]
	if got.Error == "" && got.Peer != c.to.addr(c.v6) {
		c.t.Errorf("%s: the answer is from %s", c, got.Peer)
	}
	if port := got.Local.Port(); port != 0 {
		if c.port != 0 && c.port != port {
			c.t.Errorf("%s: its port was %d, and is %d", c, c.port, port)
		}
		c.port = port
	}
	return got
}

// again connects a socket that has been disconnected; it may get another port.
func (c *client) again() {
	c.t.Helper()
	c.do(c.probe("connect"))
	c.port = 0
}

// hears wants the next thing that is sent to be answered by the server.
func (c *client) hears(when, server string) {
	c.t.Helper()
	got := c.say(patienceForAnswers)
	if name := c.s.named(got.Server, netip.AddrPort{}); got.Error != "" || name != server {
		c.t.Errorf("%s: %s: %q %s, want %s", when, c, got.Error, name, server)
	}
}
