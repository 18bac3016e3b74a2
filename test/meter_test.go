//go:build story

package test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the truth is tried with. All of it: -args -meter-for 10m -meter-bytes 2e9
var (
	meterFor   = flag.Duration("meter-for", 45*time.Second, "how long the meter is held against the fabric")
	meterBytes = flag.Float64("meter-bytes", 300e6, "how many bytes meanwhile, about")
)

// How far the meter may be from the fabric, and what is too little to say a share of: there is always some
// traffic, that of reports for one, and the two are not asked at the same instant.
const (
	allWithin  = 0.001
	pairWithin = 0.005
	// Within a zone the fabric sees what no connection is made of: packets of a node to an address of its own that no
	// pod has any more go round between node and fabric until their time is up, and are counted each time.
	zoneWithin = 0.02
	tiny       = 20_000
)

// TestMeterTruth holds the meter against the fabric, which counts by link and knows nothing of it:
// traffic of all kinds and both families, by several interfaces of each node, while pods come and go, agents
// are killed and upgraded, and the controller is killed.
func TestMeterTruth(t *testing.T) {
	l := newLab(t, "meter")
	l.must("up", "--offline", "--ip-family", "dual", "--cni", "zonewise", "--set", "agent.meter=require")
	l.must("load", l.otherImage())
	// These take most addresses of the nodes' first interfaces, so that others' packets go by the second.
	l.apply(idle(4 * 6))
	if _, err := l.kubectl("rollout", "status", "deployment/idle", "--timeout=90s"); err != nil {
		t.Fatal(err)
	}
	passing := (1 - steady) * *meterBytes / 6 // for each client that comes and goes: three pods, three of the host network
	l.apply(echoes(6, "kubernetes.io/hostname") + mixed + comers("churn", false, passing, *meterFor) + comers("host", true, passing, *meterFor))
	for _, what := range []string{"deployment/web", "deployment/direct", "daemonset/client"} {
		if _, err := l.kubectl("rollout", "status", what, "--timeout=90s"); err != nil {
			t.Fatal(err)
		}
	}
	l.settled()
	fabric, meter := l.crossings(), l.metered()

	traffic := l.mix()
	begin := time.Now()
	for _, event := range []struct {
		name string
		at   float64 // of the time
		do   func() error
	}{
		{"more clients", 0.05, l.does("scale", "deployment/churn", "deployment/host", "--replicas=3")},
		{"other servers", 0.15, l.does("rollout", "restart", "deployment/web")},
		{"SIGKILL of two agents", 0.25, func() error {
			for _, node := range []string{"a1", "c2"} {
				if _, err := l.run("exec", node, "--", "sh", "-c", `kill -9 $(pgrep -f "^/zonewise agent")`); err != nil {
					return err
				}
			}
			return nil
		}},
		{"other clients", 0.3, l.does("rollout", "restart", "deployment/churn")},
		{"upgrade of agents", 0.35, l.does("-n", "kube-system", "set", "image", "daemonset/zonewise-agent", "agent="+otherAgent)},
		{"SIGKILL of the controller", 0.65, l.killController},
		{"other servers again", 0.75, l.does("rollout", "restart", "deployment/web")},
		{"fewer clients", 0.9, l.does("scale", "deployment/churn", "deployment/host", "--replicas=0")},
	} {
		<-time.After(time.Until(begin.Add(time.Duration(event.at * float64(*meterFor)))))
		if err := event.do(); err != nil {
			t.Fatalf("%s: %v", event.name, err)
		}
	}
	traffic()
	if _, err := l.kubectl("-n", "kube-system", "rollout", "status", "daemonset/zonewise-agent", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	l.settled()
	compare(t, l.crossings().less(fabric), l.metered().less(meter))
	for alias, bytes := range l.bySecondInterfaces() {
		t.Logf("%s sent %.0f bytes by other interfaces than its first", alias, bytes)
		if least := *meterBytes / 100; bytes < least {
			t.Errorf("too few to say anything of these, want %.0f", least)
		}
	}
	if t.Failed() {
		out, err := l.zonewise("top", "flows", "--since", sinceEver, "--limit", "60", "--once")
		t.Logf("%v\n%s", err, out)
	}
}

// pair is two zones in the order of traffic.
type pair struct{ from, to string }

// pairs are bytes by pair of zones; within a zone, those between nodes.
type pairs map[pair]float64

func (p pairs) less(o pairs) pairs {
	out := pairs{}
	for k, v := range p {
		out[k] = v - o[k]
	}
	return out
}

// compare holds what the meter says against the fabric's count.
func compare(t *testing.T, fabric, meter pairs) {
	t.Helper()
	var crossed, told float64
	line := func(name string, want, got, within float64) {
		off := (got - want) / max(want, 1)
		t.Logf("%-40s %14.0f %14.0f %+10.0f %+8.3f%%", name, want, got, got-want, 100*off)
		if math.Abs(off) > within && math.Abs(got-want) > tiny {
			t.Errorf("%s: the meter is off by %+.3f%%, more than %.1f%%", name, 100*off, 100*within)
		}
	}
	t.Logf("%-40s %14s %14s %10s %9s", "ZONES", "FABRIC", "METER", "OFF", "OFF")
	byName := func(a, b pair) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) }
	for _, k := range slices.SortedFunc(maps.Keys(fabric), byName) {
		if k.from == k.to {
			line(k.from+" > "+k.to, fabric[k], meter[k], zoneWithin)
		} else {
			line(k.from+" > "+k.to, fabric[k], meter[k], pairWithin)
			crossed, told = crossed+fabric[k], told+meter[k]
		}
	}
	line("all that crossed", crossed, told, allWithin)
	if least := *meterBytes / 3; crossed < least {
		t.Errorf("%.0f bytes crossed zones: too few to say anything, want %.0f", crossed, least)
	}
}

// bySecondInterfaces is what each node sent by those that it got for its pods.
func (l *lab) bySecondInterfaces() map[string]float64 {
	l.t.Helper()
	sent := map[string]float64{}
	for _, alias := range []string{"a1", "a2", "b1", "b2", "c1", "c2"} {
		out, err := l.command("exec", alias, "--", "ip", "-j", "-s", "link").Output()
		if err != nil {
			l.t.Fatal(err)
		}
		var links []struct {
			Name  string                               `json:"ifname"`
			Stats struct{ TX struct{ Bytes float64 } } `json:"stats64"`
		}
		if err := json.Unmarshal(out, &links); err != nil {
			l.t.Fatal(err)
		}
		sent[alias] = 0
		for _, v := range links {
			if strings.HasPrefix(v.Name, "eth") && v.Name != "eth0" {
				sent[alias] += v.Stats.TX.Bytes
			}
		}
	}
	return sent
}

func (l *lab) does(args ...string) func() error {
	return func() error { _, err := l.kubectl(args...); return err }
}

// crossings is what the fabric counted so far.
func (l *lab) crossings() pairs {
	l.t.Helper()
	out, err := l.command("status", "-o", "json").Output()
	if err != nil {
		l.t.Fatal(err)
	}
	var status struct {
		Traffic []struct {
			From, To string
			Bytes    float64
		}
	}
	if err := json.Unmarshal(out, &status); err != nil {
		l.t.Fatal(err)
	}
	p := pairs{}
	for _, c := range status.Traffic {
		p[pair{c.From, c.To}] = c.Bytes
	}
	return p
}

// metered is what the meter counted so far, as a user asks for it.
func (l *lab) metered() pairs {
	l.t.Helper()
	p, err := l.askMeter()
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// flow is a line of `zonewise flows -o json`.
type flow struct {
	At                          time.Time
	Seconds                     float64
	Client, Server              struct{ Zone, Node string }
	RequestBytes, ResponseBytes float64
}

// sinceEver is longer than any test.
const sinceEver = "3h"

func (l *lab) askMeter() (pairs, error) {
	var traffic struct {
		Zones []struct {
			From, To string
			Bytes    float64
		}
	}
	out, err := l.zonewise("top", "zones", "--since", sinceEver, "-o", "json")
	if err == nil {
		err = json.Unmarshal(out, &traffic)
	}
	if err != nil {
		return nil, fmt.Errorf("top zones: %w", err)
	}
	p := pairs{}
	for _, z := range traffic.Zones {
		if zone(z.From) && zone(z.To) && z.From != z.To {
			p[pair{z.From, z.To}] += z.Bytes
		}
	}
	// What stayed on its node is in a zone as well, and is none of the fabric's.
	out, err = l.zonewise("flows", "--since", sinceEver, "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("flows: %w", err)
	}
	for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); {
		var f flow
		if err := lines.Decode(&f); err != nil {
			return nil, fmt.Errorf("flows: %w", err)
		}
		if zone := f.Client.Zone; zone != "" && zone == f.Server.Zone && f.Client.Node != f.Server.Node {
			p[pair{zone, zone}] += f.RequestBytes + f.ResponseBytes
		}
	}
	return p, nil
}

// zone tells whether a name is a zone's: "(outside)" and "(unknown)" are none.
func zone(name string) bool { return !strings.HasPrefix(name, "(") }

func (l *lab) zonewise(args ...string) ([]byte, error) {
	var problem bytes.Buffer
	cmd := exec.Command(filepath.Join(l.bin, "zonewise"), append(args, "--kubeconfig", l.kubeconfig())...)
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, problem.String())
	}
	return out, err
}

// settled waits until every node has reported what it counted until now: reports come one after another, so
// one of an interval that began later comes after all of that. Every node has something to report, for
// the kubelet asks after its pods' health.
func (l *lab) settled() {
	l.t.Helper()
	now, nodes := time.Now(), l.list("get", "nodes", "-o", "name")
	await(l.t, "every node has reported", func() error {
		out, err := l.zonewise("flows", "--since", "1m", "-o", "json")
		if err != nil {
			return err
		}
		later := map[string]bool{}
		for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); {
			var f flow
			if err := lines.Decode(&f); err != nil {
				return fmt.Errorf("flows: %w", err)
			}
			if began := f.At.Add(-time.Duration(f.Seconds * float64(time.Second))); !began.Before(now) {
				later["node/"+f.Client.Node] = true
			}
		}
		for _, n := range nodes {
			if !later[n] {
				return fmt.Errorf("%s has not", n)
			}
		}
		return nil
	})
}
