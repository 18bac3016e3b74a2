//go:build kernel

package conformance

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestChoice(t *testing.T) {
	onEachPath(t, []row{
		{"25 evenly over all ready endpoints", evenly},
		{"26 Local policies keep to this node", localPolicies},
		{"27 serving endpoints that terminate, if none is ready", terminating},
		{"28 hints of nodes and zones", topology},
		{"29 unready addresses that are published", published},
		{"30 session affinity", sessions},
	})
}

// evenly connects often: each of 3 endpoints gets 300 of 900, give or take five times the standard
// deviation of 14.
func evenly(t *testing.T, s *stage) {
	web := svc(1, nodePort)
	s.set(web, s.behind(web, on("pod2 pod3 remote")...))
	for _, to := range []target{clusterIP(1), nodeAt(1)} {
		got := map[string]int{}
		for _, o := range s.ask(t, "pod0", to, false, 900, patienceForAnswers) {
			got[s.named(o.Server, to.addr(false))]++
		}
		for _, host := range []string{"pod2", "pod3", "remote"} {
			if n := got[host]; n < 230 || n > 370 {
				t.Errorf("%s: %v, want about 300 each", to.what, got)
			}
		}
		if len(got) != 3 {
			t.Errorf("%s: %v", to.what, got)
		}
	}
}

func localPolicies(t *testing.T, s *stage) {
	web := svc(1, balanced, external, internalLocal, externalLocal)
	s.set(web, s.behind(web, on("pod2 remote pod3 other")...))
	for _, from := range []string{"pod0", "node", "stranger"} {
		s.reachAll(t, from, clusterIP(1), "pod2 pod3", from == "stranger")
	}
	for _, kind := range outward {
		s.reachAll(t, "stranger", kind(1), "pod2 pod3", kept)
	}
	// An endpoint of nowhere is not on this node.
	two := svc(2, internalLocal)
	s.set(two, s.behind(two, endpoint{host: "pod2", anywhere: true}, endpoint{host: "pod3"}))
	s.reach(t, "pod0", clusterIP(2), "pod3", kept)
}

func terminating(t *testing.T, s *stage) {
	up := func(host string) endpoint { return endpoint{host: host} }
	leaving := func(host string) endpoint { return endpoint{host: host, leaving: true} }
	for n, c := range []struct {
		endpoints      []endpoint
		cluster, local string // servers; a word that is no host's is how it fails
	}{
		{[]endpoint{up("pod2"), leaving("pod3"), up("remote")}, "pod2 remote", "pod2"},
		{[]endpoint{leaving("pod2"), {host: "pod3", gone: true}, up("remote")}, "remote", "pod2"},
		{[]endpoint{leaving("pod2"), leaving("remote"), {host: "pod3", unready: true}}, "pod2 remote", "pod2"},
		{[]endpoint{{host: "pod2", gone: true}, leaving("remote")}, "remote", silence},
		{[]endpoint{{host: "pod2", unready: true}, up("remote")}, "remote", silence},
		{[]endpoint{{host: "pod2", gone: true}, {host: "remote", gone: true}}, refused, refused},
	} {
		one := svc(10+n, balanced)
		two := svc(20+n, balanced, externalLocal, internalLocal)
		s.set(one, two, s.behind(one, c.endpoints...), s.behind(two, c.endpoints...))
		check := func(from string, to target, servers string, masquerade bool) {
			t.Helper()
			if servers == refused || servers == silence {
				s.fails(t, from, to, servers)
			} else {
				s.reach(t, from, to, servers, masquerade)
			}
		}
		check("pod0", clusterIP(10+n), c.cluster, kept)
		check("stranger", balancer(10+n), c.cluster, masked)
		check("stranger", nodeAt(10+n), c.cluster, masked)
		check("pod0", clusterIP(20+n), c.local, kept)
		check("stranger", balancer(20+n), c.local, kept)
		check("stranger", nodeAt(20+n), c.local, kept)
		check("pod0", balancer(20+n), c.cluster, kept) // insiders see all of it
	}
}

func topology(t *testing.T, s *stage) {
	for n, c := range []struct {
		what      string
		endpoints []endpoint
		servers   string
	}{
		{"zones", []endpoint{{host: "pod2", zones: "a"}, {host: "pod3", zones: "b"}, {host: "remote", zones: "a b"}}, "pod2 remote"},
		{"one without a zone", []endpoint{{host: "pod2", zones: "a"}, {host: "remote"}}, "pod2 remote"},
		{"one that is not ready without a zone", []endpoint{{host: "pod2", zones: "a"}, {host: "remote", zones: "b"}, {host: "pod3", unready: true}}, "pod2"},
		{"no zone is ours", []endpoint{{host: "pod2", zones: "b"}, {host: "remote", zones: "c"}}, "pod2 remote"},
		{"nodes", []endpoint{{host: "pod2", nodes: "n1"}, {host: "pod3", nodes: "n2"}, {host: "remote", nodes: "n1 n2"}}, "pod2 remote"},
		{"nodes before zones", []endpoint{{host: "pod2", nodes: "n1", zones: "a"}, {host: "pod3", nodes: "n2", zones: "a"}}, "pod2"},
		{"one without a node: zones", []endpoint{{host: "pod2", nodes: "n1", zones: "b"}, {host: "pod3", zones: "a"}}, "pod3"},
		{"no node is ours: zones", []endpoint{{host: "pod2", nodes: "n2", zones: "b"}, {host: "pod3", nodes: "n3", zones: "a"}}, "pod3"},
		{"neither nodes nor zones", []endpoint{{host: "pod2", nodes: "n2"}, {host: "pod3", nodes: "n3"}}, "pod2 pod3"},
	} {
		web := svc(10+n, nodePort)
		s.set(web, s.behind(web, c.endpoints...))
		t.Run(c.what, func(t *testing.T) {
			s.reach(t, "pod0", clusterIP(10+n), c.servers, kept)
			s.reach(t, "stranger", nodeAt(10+n), c.servers, masked)
		})
	}
	local := svc(1, nodePort, internalLocal, externalLocal)
	s.set(local, s.behind(local, endpoint{host: "pod2", zones: "b"}, endpoint{host: "pod3", zones: "a"}, endpoint{host: "remote", zones: "a"}))
	s.reach(t, "pod0", clusterIP(1), "pod2 pod3", kept)
	s.reach(t, "stranger", nodeAt(1), "pod2 pod3", kept)
}

// published endpoints are those that the API calls ready whatever their pod says of itself.
func published(t *testing.T, s *stage) {
	web := svc(1)
	web.Spec.PublishNotReadyAddresses = true
	all := s.behind(web, on("pod2 pod3")...)
	for _, slice := range all {
		slice.Endpoints[0].Conditions.Serving = ptr(false)
		slice.Endpoints[1].Conditions.Serving, slice.Endpoints[1].Conditions.Terminating = ptr(false), ptr(true)
	}
	s.set(web, all)
	s.reach(t, "pod0", clusterIP(1), "pod2 pod3", kept)
}

func sticky(timeout time.Duration) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
			ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr(int32(timeout.Seconds()))},
		}
	}
}

// only asks many times, and returns the one who always answered.
func (s *stage) only(t *testing.T, from string, to target, v6 bool) string {
	t.Helper()
	var first string
	for _, o := range s.ask(t, from, to, v6, 20, patienceForAnswers) {
		if o.Error != "" {
			t.Fatalf("%s to %s: %s", from, to.what, o.Error)
		}
		switch name := s.named(o.Server, to.addr(v6)); {
		case first == "":
			first = name
		case name != first:
			t.Errorf("%s to %s (%s): %s, then %s", from, to.what, to.addr(v6), first, name)
		}
	}
	return first
}

const long = 3 * time.Hour

func sessions(t *testing.T, s *stage) {
	ends := "pod2 pod3 remote other"
	web := svc(1, balanced, external, sticky(long))
	s.set(web, s.behind(web, on(ends)...))
	for _, v6 := range []bool{false, true} {
		for _, from := range []string{"pod0", "pod1", "node", "stranger", "remote"} {
			// At whatever address of the Service port: it is remembered once.
			at := s.only(t, from, clusterIP(1), v6)
			for _, kind := range outward {
				if other := s.only(t, from, kind(1), v6); other != at {
					t.Errorf("%s: %s at the ClusterIP, %s at %s", from, at, other, kind(1).what)
				}
			}
			s.only(t, from, overUDP(clusterIP(1)), v6)
			s.tick() // who is known at the socket from now on stays where he is
			for _, kind := range append([]func(int) target{clusterIP}, outward...) {
				if other := s.only(t, from, kind(1), v6); other != at {
					t.Errorf("%s: %s, and then %s at %s", from, at, other, kind(1).what)
				}
			}
		}
	}
	t.Run("externalTrafficPolicy Local", func(t *testing.T) {
		web := svc(2, balanced, external, externalLocal, sticky(long))
		s.set(web, s.behind(web, on("pod2 pod3 pod4 remote other")...))
		for _, kind := range outward {
			s.only(t, "stranger", kind(2), false)
			s.only(t, "pod0", kind(2), false)
		}
		s.spread(t, "switched off", svc(2, balanced, external, externalLocal), balancer(2), "stranger", 3)
	})
	t.Run("an endpoint that goes", func(t *testing.T) {
		web := svc(3, sticky(long))
		hosts := map[string]bool{"pod2": true, "pod3": true, "remote": true}
		for len(hosts) > 0 {
			var ends []endpoint
			for _, h := range []string{"pod2", "pod3", "remote"} {
				if hosts[h] {
					ends = append(ends, endpoint{host: h})
				}
			}
			s.set(web, s.behind(web, ends...))
			at := s.only(t, "pod0", clusterIP(3), false)
			if !hosts[at] {
				t.Fatalf("%s answers, which is gone", at)
			}
			delete(hosts, at)
		}
	})
	t.Run("switched on and off", func(t *testing.T) {
		web := svc(4)
		s.set(web, s.behind(web, on(ends)...))
		s.reach(t, "pod0", clusterIP(4), ends, kept)
		s.set(svc(4, sticky(long)))
		s.only(t, "pod0", clusterIP(4), false)
		s.spread(t, "off", svc(4), clusterIP(4), "pod0", 4)
	})
	t.Run("forgotten after its time", func(t *testing.T) {
		web := svc(5, sticky(time.Second))
		s.set(web, s.behind(web, on(ends)...))
		first := s.only(t, "pod0", clusterIP(5), false)
		// One who was forgotten gets another endpoint three times of four.
		tick := time.NewTicker(1500 * time.Millisecond)
		defer tick.Stop()
		for range 12 {
			<-tick.C
			if s.only(t, "pod0", clusterIP(5), false) != first {
				return
			}
		}
		t.Errorf("still %s", first)
	})
}

// spread sets a Service without affinity, and wants to meet so many endpoints.
func (s *stage) spread(t *testing.T, what string, web *corev1.Service, to target, from string, want int) {
	t.Helper()
	s.set(web)
	got := map[string]bool{}
	for _, o := range s.ask(t, from, to, false, 100, patienceForAnswers) {
		got[s.named(o.Server, to.addr(false))] = true
	}
	if len(got) != want {
		t.Errorf("%s: met %v, want %d", what, got, want)
	}
}
