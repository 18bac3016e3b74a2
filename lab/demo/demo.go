// Package demo is the experiment that shows what Zonewise is about, narrated and measured: a Service
// over the zones of a running lab, requests to it with and without zone hints and after most of its
// pods are gone, what crossed zones each time, and what that costs. It types what a user would.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// Shell runs a command of the lab's user, kubectl or zonewise, and returns what it printed.
type Shell func(ctx context.Context, argv ...string) (string, error)

// Zone of the lab, with the names of its nodes.
type Zone struct {
	Name  string
	Nodes []string
}

// Options of Run.
type Options struct {
	Zones    []Zone  // the client is in the first, the last pod in the second
	Setup    string  // what a user types once to have kubectl at hand
	Manifest string  // the file into which Run writes what it deploys
	Requests int     // in each step
	Rate     float64 // requests per second for which the cost is worked out
	Out      io.Writer
	Color    bool
	Shell    Shell
	Crossed  func(context.Context) (uint64, error) // bytes that have crossed zones so far, from pods to pods
}

// Patience for what Kubernetes and the agents do on their own.
const (
	patience     = 30 * time.Second
	pollInterval = 200 * time.Millisecond
)

// Clean removes what a demo made in a lab.
var Clean = []string{"kubectl", "delete", "namespace", "--selector=zonewise.io/made-by=demo"}

//go:embed demo.yaml
var manifest string

//go:embed route.yaml
var route string

// Run runs the experiment. An error says which step did not come out as it must, and how.
func Run(ctx context.Context, o Options) error {
	if len(o.Zones) < 2 {
		return errors.New("the demo needs a lab of two or more zones")
	}
	r := run{Options: o, tell: teller{o.Out, o.Color}, client: o.Zones[0].Name, zoneOf: map[string]string{}}
	for _, z := range o.Zones {
		for _, n := range z.Nodes {
			r.zoneOf[n] = z.Name
		}
	}
	var steps []Step
	for i, s := range r.script() {
		r.tell.title(i+1, s.title)
		step, err := s.do(ctx, s.name)
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s.name, err)
		}
		steps = append(steps, step)
	}
	r.tell.title(len(steps)+1, "What crossed zones, and what that costs")
	var bill bytes.Buffer
	if err := writeBill(&bill, steps, o.Rate); err != nil {
		return err
	}
	r.tell.output(bill.String())
	r.tell.say("Crossed: bytes of IP packets between pods of different zones, counted by the lab's network while the requests ran.")
	r.tell.say("USD: a month (730 h) of %s such requests a second, at %.2f USD per GB and direction.", thousands(o.Rate, 0), usdPerGB)
	r.tell.title(len(steps)+2, "The same, as Zonewise's own meter tells it")
	return r.metered(ctx, steps)
}

type run struct {
	Options
	tell    teller
	client  string            // zone of the client
	zoneOf  map[string]string // of a node
	address string            // of the Service
}

type scene struct {
	name, title string
	do          func(ctx context.Context, name string) (Step, error)
}

func (r *run) script() []scene {
	scenes := []scene{
		{"Service as it comes", fmt.Sprintf("An echo Service with a pod in each of %d zones, and a client in %s", len(r.Zones), r.client), r.asItComes},
		{"topology-mode: auto", "Kubernetes is asked to keep the Service's traffic in its zone, and Zonewise obeys", r.zoneHints},
	}
	if len(r.Zones) <= refusedZones {
		scenes = append(scenes,
			scene{"auto, one pod more", "A pod more, and Kubernetes gives up", r.onePodMore},
			scene{"Zonewise's own plan", "Zonewise is asked instead", r.zoneRoute})
	}
	return append(scenes, scene{"one pod, other zone", "Only one pod is left, in " + r.Zones[1].Name + ": nothing may be lost", r.onePod})
}

// refusedZones is the largest number of zones for which it is known that Kubernetes gives no hints
// to one pod more than there are zones.
const refusedZones = 4

func (r *run) asItComes(ctx context.Context, name string) (Step, error) {
	// An earlier demo may have left its namespace. One of somebody else makes `create` fail.
	if _, err := r.Shell(ctx, Clean...); err != nil {
		return Step{}, err
	}
	if err := r.writeManifest(); err != nil {
		return Step{}, err
	}
	r.tell.command(r.Setup)
	if _, err := r.enter(ctx, "kubectl", "create", "-f", r.Manifest); err != nil {
		return Step{}, err
	}
	if err := r.rollout(ctx); err != nil {
		return Step{}, err
	}
	if _, err := r.Shell(ctx, "kubectl", "-n", "demo", "wait", "--for=condition=Ready", "pod/client", "--timeout="+patience.String()); err != nil {
		return Step{}, err
	}
	var err error
	if r.address, err = r.enter(ctx, "kubectl", "-n", "demo", "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"); err != nil {
		return Step{}, err
	}
	r.tell.output(r.address)
	if _, err := r.settled(ctx, len(r.Zones), false); err != nil {
		return Step{}, err
	}
	return r.requests(ctx, name, func(s Spread) error { return wantZones(s, len(r.Zones)) })
}

func (r *run) zoneHints(ctx context.Context, name string) (Step, error) {
	if _, err := r.enter(ctx, "kubectl", "-n", "demo", "annotate", "service", "echo", "service.kubernetes.io/topology-mode=auto"); err != nil {
		return Step{}, err
	}
	if err := r.showHints(ctx, len(r.Zones), true); err != nil {
		return Step{}, err
	}
	text, err := r.enter(ctx, "zonewise", "service", "echo", "-n", "demo")
	if err != nil {
		return Step{}, err
	}
	r.tell.output(text)
	return r.requests(ctx, name, func(s Spread) error { return wantIn(s, r.client) })
}

func (r *run) onePodMore(ctx context.Context, name string) (Step, error) {
	pods := len(r.Zones) + 1
	if _, err := r.enter(ctx, "kubectl", "-n", "demo", "scale", "deployment", "echo", fmt.Sprintf("--replicas=%d", pods)); err != nil {
		return Step{}, err
	}
	if err := r.rollout(ctx); err != nil {
		return Step{}, err
	}
	if err := r.showHints(ctx, pods, false); err != nil {
		return Step{}, err
	}
	text, err := r.enter(ctx, "zonewise", "explain", "echo", "-n", "demo")
	if err != nil {
		return Step{}, err
	}
	r.tell.output(text)
	return r.requests(ctx, name, func(s Spread) error { return wantZones(s, len(r.Zones)) })
}

// zoneRoute replaces what Kubernetes is asked by a ZoneRoute.
func (r *run) zoneRoute(ctx context.Context, name string) (Step, error) {
	if _, err := r.enter(ctx, "kubectl", "-n", "demo", "annotate", "service", "echo", "service.kubernetes.io/topology-mode-"); err != nil {
		return Step{}, err
	}
	file := filepath.Join(filepath.Dir(r.Manifest), "route.yaml")
	if err := os.WriteFile(file, []byte(route), 0o644); err != nil {
		return Step{}, err
	}
	if _, err := r.enter(ctx, "kubectl", "apply", "-f", file); err != nil {
		return Step{}, err
	}
	r.tell.output(route)
	if _, err := r.enter(ctx, "kubectl", "-n", "demo", "wait", "zoneroute", "echo", "--for=condition=Applied", "--timeout="+patience.String()); err != nil {
		return Step{}, err
	}
	err := r.until(ctx, func(ctx context.Context) error {
		report, err := r.Shell(ctx, "zonewise", "service", "echo", "-n", "demo", "-o", "json")
		if err != nil {
			return err
		}
		return wantRouted(report, len(r.zoneOf))
	})
	if err != nil {
		return Step{}, err
	}
	for _, command := range [][]string{
		{"kubectl", "-n", "demo", "get", "zoneroutes"},
		{"zonewise", "service", "echo", "-n", "demo"},
	} {
		text, err := r.enter(ctx, command...)
		if err != nil {
			return Step{}, err
		}
		r.tell.output(text)
	}
	return r.requests(ctx, name, func(s Spread) error { return wantMostIn(s, r.client) })
}

func (r *run) onePod(ctx context.Context, name string) (Step, error) {
	zone := r.Zones[1].Name
	patch := fmt.Sprintf(`{"spec": {"replicas": 1, "template": {"spec": {"nodeSelector": {"topology.kubernetes.io/zone": %q}}}}}`, zone)
	if _, err := r.enter(ctx, "kubectl", "-n", "demo", "patch", "deployment", "echo", "-p", patch); err != nil {
		return Step{}, err
	}
	if err := r.rollout(ctx); err != nil {
		return Step{}, err
	}
	// With hints or without: where there is one pod, everything goes there.
	err := r.until(ctx, func(ctx context.Context) error {
		text, err := r.Shell(ctx, askHints...)
		if err != nil {
			return err
		}
		left, err := parseHints(text)
		if err != nil {
			return err
		}
		if err := wantPods(left, 1); err != nil {
			return err
		}
		report, err := r.Shell(ctx, "zonewise", "service", "echo", "-n", "demo", "-o", "json")
		if err != nil {
			return err
		}
		return wantProgrammed(report, left, len(r.zoneOf), false)
	})
	if err != nil {
		return Step{}, err
	}
	return r.requests(ctx, name, func(s Spread) error { return wantIn(s, zone) })
}

// metered shows what the agents counted of all steps. Where a kernel cannot count, that is said, and no error.
func (r *run) metered(ctx context.Context, steps []Step) error {
	var crossed uint64
	for _, s := range steps {
		crossed += s.Crossed
	}
	err := r.until(ctx, func(ctx context.Context) error {
		report, err := r.Shell(ctx, "zonewise", "top", "services", "-n", "demo", "--since", meteredSince, "-o", "json")
		if err != nil {
			return err
		}
		return wantMetered(report, crossed)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.tell.say("It does not: %v", err)
		return nil
	}
	for _, command := range [][]string{
		{"zonewise", "top", "services", "-n", "demo", "--since", meteredSince, "--once"},
		{"zonewise", "top", "zones", "--since", meteredSince, "--once"},
		{"zonewise", "cost", "-n", "demo", "--since", meteredSince},
	} {
		text, err := r.enter(ctx, command...)
		if err != nil {
			return err
		}
		r.tell.output(text)
	}
	return nil
}

// meteredSince is longer than a demo takes.
const meteredSince = "5m"

func (r *run) writeManifest() error {
	var text bytes.Buffer
	err := template.Must(template.New("demo.yaml").Parse(manifest)).Execute(&text, map[string]any{
		"Replicas": len(r.Zones), "ClientZone": r.client,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(r.Manifest, text.Bytes(), 0o644)
}

func (r *run) rollout(ctx context.Context) error {
	_, err := r.enter(ctx, "kubectl", "-n", "demo", "rollout", "status", "deployment/echo", "--timeout="+patience.String())
	return err
}

// askHints asks for the Service's endpoints and their hints, in the form that parseHints reads.
var askHints = []string{
	"kubectl", "-n", "demo", "get", "endpointslices", "-l", "kubernetes.io/service-name=echo", "-o",
	`jsonpath={range .items[*].endpoints[*]}{.addresses[0]} in {.zone} for {.hints.forZones[*].name}{"\n"}{end}`,
}

func (r *run) showHints(ctx context.Context, endpoints int, hinted bool) error {
	r.tell.command(quote(askHints))
	text, err := r.settled(ctx, endpoints, hinted)
	r.tell.output(text)
	return err
}

// settled waits until Kubernetes has written the endpoints and hints that must come, and every node
// has programmed them. It returns the endpoints as kubectl printed them last.
func (r *run) settled(ctx context.Context, endpoints int, hinted bool) (text string, err error) {
	err = r.until(ctx, func(ctx context.Context) error {
		last, missing := r.look(ctx, endpoints, hinted)
		if last != "" {
			text = last
		}
		return missing
	})
	return text, err
}

// until looks again and again until nothing is missing. Its error is what was missing last.
func (r *run) until(outer context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(outer, patience)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var err error
	for {
		missing := look(ctx)
		if missing == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if outer.Err() != nil {
				return outer.Err()
			}
			return fmt.Errorf("after %s: %w", patience, err)
		case <-tick.C:
			err = missing
		}
	}
}

func (r *run) look(ctx context.Context, endpoints int, hinted bool) (string, error) {
	text, err := r.Shell(ctx, askHints...)
	if err != nil {
		return "", err
	}
	hints, err := parseHints(text)
	if err != nil {
		return text, err
	}
	if err := wantHints(hints, endpoints, hinted); err != nil {
		return text, err
	}
	report, err := r.Shell(ctx, "zonewise", "service", "echo", "-n", "demo", "-o", "json")
	if err != nil {
		return text, err
	}
	return text, wantProgrammed(report, hints, len(r.zoneOf), hinted)
}

// requests sends a batch, counts what crossed zones meanwhile, and shows who answered.
func (r *run) requests(ctx context.Context, name string, want func(Spread) error) (Step, error) {
	step := Step{Name: name, ClientZone: r.client}
	pods, err := r.pods(ctx)
	if err != nil {
		return step, err
	}
	before, err := r.Crossed(ctx)
	if err != nil {
		return step, err
	}
	loop := fmt.Sprintf("for i in {1..%d}; do curl -s %s | grep Hostname; done | sort | uniq -c", r.Requests, r.address)
	text, err := r.enter(ctx, "kubectl", "-n", "demo", "exec", "client", "--", "zsh", "-c", loop)
	if err != nil {
		return step, err
	}
	after, err := r.Crossed(ctx)
	if err != nil {
		return step, err
	}
	step.Crossed = after - before
	if step.Spread, err = parseSpread(text, pods); err != nil {
		return step, err
	}
	var shown strings.Builder
	for _, h := range step.Spread {
		fmt.Fprintf(&shown, "%7d Hostname: %s  (%s)\n", h.Requests, h.Pod, h.Zone)
	}
	r.tell.output(shown.String())
	r.tell.say("%d of %d answered, %d from %s itself; %s bytes crossed zones.", step.Spread.Answered(), r.Requests,
		step.Spread.In(r.client), r.client, thousands(float64(step.Crossed), 0))
	if err := wantAll(step.Spread, r.Requests); err != nil {
		return step, err
	}
	return step, want(step.Spread)
}

// pods maps each echo pod to its zone.
func (r *run) pods(ctx context.Context) (map[string]string, error) {
	text, err := r.Shell(ctx, "kubectl", "-n", "demo", "get", "pods", "-l", "app=echo", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)
	if err != nil {
		return nil, err
	}
	zones := map[string]string{}
	for line := range strings.Lines(text) {
		if pod, node, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			zones[pod] = r.zoneOf[node]
		}
	}
	return zones, nil
}

// enter shows a command and runs it.
func (r *run) enter(ctx context.Context, argv ...string) (string, error) {
	r.tell.command(quote(argv))
	return r.Shell(ctx, argv...)
}
