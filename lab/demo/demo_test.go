package demo

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/zonewise/zonewise/internal/golden"
)

// fake is a cluster of three zones with a node each, as far as the demo can see it.
type fake struct {
	t       *testing.T
	hinted  bool // the annotation is there
	single  bool // scaled to one pod
	more    bool // scaled to one pod more than zones
	routed  bool // has a ZoneRoute
	lose    int  // requests of each batch that get no answer
	refuse  bool // upstream gives no hints
	deaf    bool // the nodes do not program hints
	crossed uint64
	blind   bool // counts nothing
}

var fakeZones = []Zone{{"za", []string{"na"}}, {"zb", []string{"nb"}}, {"zc", []string{"nc"}}}

func (f *fake) pods() []Zone {
	if f.single {
		return fakeZones[1:2]
	}
	if f.more {
		return append([]Zone{{"zb", []string{"nb"}}}, fakeZones...)
	}
	return fakeZones
}

func (f *fake) hints() bool { return f.hinted && !f.single && !f.more && !f.refuse }

func (f *fake) shell(_ context.Context, argv ...string) (string, error) {
	var out strings.Builder
	switch line := strings.Join(argv, " "); {
	case strings.Contains(line, " annotate "):
		f.hinted = true
	case strings.Contains(line, " patch "):
		f.single = true
	case strings.Contains(line, " scale "):
		f.more = true
	case strings.HasPrefix(line, "kubectl apply"):
		f.routed = true
	case strings.Contains(line, "get zoneroutes"):
		out.WriteString("(the plan in one line)\n")
	case strings.HasPrefix(line, "zonewise explain"):
		out.WriteString("(why)\n")
	case strings.Contains(line, ".spec.clusterIP"):
		out.WriteString("10.100.0.99")
	case strings.Contains(line, "get endpointslices"):
		for _, z := range f.pods() {
			hint := ""
			if f.hints() {
				hint = z.Name
			}
			fmt.Fprintf(&out, "10.0.0.%s in %s for %s\n", z.Name, z.Name, hint)
		}
	case strings.Contains(line, "get pods"):
		for _, z := range f.pods() {
			fmt.Fprintf(&out, "echo-%s %s\n", z.Name, z.Nodes[0])
		}
	case strings.HasPrefix(line, "zonewise top services") && strings.HasSuffix(line, "-o json"):
		if !f.blind {
			fmt.Fprintf(&out, `{"lines": [{"name": "demo/echo", "crossZoneBytes": %d}]}`, f.crossed)
		} else {
			out.WriteString(`{"notes": ["3 of 3 nodes have not reported"]}`)
		}
	case strings.HasPrefix(line, "zonewise top"), strings.HasPrefix(line, "zonewise cost"):
		out.WriteString("(what was counted)\n")
	case strings.HasSuffix(line, "-o json"):
		out.WriteString(f.report())
	case strings.HasPrefix(line, "zonewise service"):
		out.WriteString("(what the nodes do)\n")
	case strings.Contains(line, " exec client "):
		f.answer(&out)
	}
	return out.String(), nil
}

// report is a `zonewise service -o json`.
func (f *fake) report() string {
	var nodes []string
	for _, n := range fakeZones {
		var endpoints []string
		for _, z := range f.pods() {
			if !f.hints() || f.deaf || z.Name == n.Name {
				endpoints = append(endpoints, fmt.Sprintf(`{"address": "10.0.0.%s:8080", "zone": %q, "share": %v}`, z.Name, z.Name, f.share(n, z)))
			}
		}
		nodes = append(nodes, fmt.Sprintf(`{"node": %q, "zone": %q, "endpoints": [%s]}`, n.Nodes[0], n.Name, strings.Join(endpoints, ",")))
	}
	return fmt.Sprintf(`{"ports": [{"nodes": [%s]}]}`, strings.Join(nodes, ","))
}

// share is what a node's zone gets of another: nine tenths, with a ZoneRoute, stay.
func (f *fake) share(from, to Zone) float64 {
	switch {
	case f.routed && from.Name == "zb" && to.Name == "zb":
		return 0.5 // of two pods
	case f.routed && from.Name == to.Name:
		return 0.9
	case f.routed && from.Name != "zb" && to.Name == "zb":
		return 0.05
	}
	return 0
}

// answer is a batch of 100 requests of zone za, 1,000 bytes each.
func (f *fake) answer(out *strings.Builder) {
	switch {
	case f.single:
		fmt.Fprintf(out, "    %d Hostname: echo-zb\n", 100-f.lose)
		f.crossed += 100_000
	case f.routed:
		fmt.Fprintf(out, "    %d Hostname: echo-za\n     9 Hostname: echo-zb\n", 91-f.lose)
		f.crossed += 9_000
	case f.hints():
		fmt.Fprintf(out, "    %d Hostname: echo-za\n", 100-f.lose)
	default:
		fmt.Fprintf(out, "     %d Hostname: echo-za\n     40 Hostname: echo-zb\n     30 Hostname: echo-zc\n", 30-f.lose)
		f.crossed += 70_000
	}
}

func (f *fake) run(ctx context.Context) (string, error) {
	var out bytes.Buffer
	err := Run(ctx, Options{
		Zones: fakeZones, Setup: "export KUBECONFIG=kubeconfig", Manifest: filepath.Join(f.t.TempDir(), "demo.yaml"),
		Requests: 100, Rate: 1000, Out: &out, Shell: f.shell,
		Crossed: func(context.Context) (uint64, error) { return f.crossed, nil },
	})
	return out.String(), err
}

func TestRun(t *testing.T) {
	f := &fake{t: t}
	got, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(got, "\n")
	for i, l := range lines {
		if before, _, ok := strings.Cut(l, "create -f "); ok {
			lines[i] = before + "create -f demo.yaml" // its folder is another in each run
		}
		if before, _, ok := strings.Cut(l, "apply -f "); ok {
			lines[i] = before + "apply -f route.yaml"
		}
	}
	got = strings.Join(lines, "\n")
	golden.Check(t, "demo.txt", got)
}

// Whatever does not come out as it must ends the demo with what was wrong, at the step where it was.
func TestRunFails(t *testing.T) {
	for name, c := range map[string]struct {
		fake fake
		want string
	}{
		"lost":   {fake{lose: 2}, "step 1, Service as it comes: 2 of 100 requests were lost"},
		"refuse": {fake{refuse: true}, "endpoint 10.0.0.za has no zone hint"},
		"deaf":   {fake{deaf: true}, "node na sends to [10.0.0.za:8080 10.0.0.zb:8080 10.0.0.zc:8080], not to [10.0.0.za:8080]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.fake.t = t
				out, err := c.fake.run(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q in it", err, c.want)
				}
				if strings.Contains(out, "USD") {
					t.Errorf("a bill was shown after a failure:\n%s", out)
				}
			})
		})
	}
}

// Without a meter the demo tells that it tells nothing.
func TestRunBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{t: t, blind: true}
		out, err := f.run(t.Context())
		if err != nil || !strings.Contains(out, "It does not: after 30s: the meter has not told of all 249,000 bytes that crossed zones [3 of 3 nodes have not reported]") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

func TestRunNeedsZones(t *testing.T) {
	if err := Run(t.Context(), Options{Zones: fakeZones[:1]}); err == nil {
		t.Error("one zone: no error")
	}
}
