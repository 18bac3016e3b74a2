package dump

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/model"
)

var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func shop(name string) model.Name { return model.Name{Namespace: "shop", Name: name} }

func cluster(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func read(t testing.TB, text string) Dump {
	t.Helper()
	d, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func lines(notes []Note) []string {
	var out []string
	for _, n := range notes {
		out = append(out, n.String())
	}
	return out
}

// What is strange is noted with the object and the field, and everything else is read.
func TestRead(t *testing.T) {
	got := read(t, cluster(t))
	ip := netip.MustParseAddr
	want := Dump{
		Nodes: []model.Node{{Name: "n1", Zone: "a", MilliCPU: 1930, Ready: true}, {Name: "n2", MilliCPU: 2000}},
		Services: []model.Service{{Name: shop("web"), Type: model.ClusterIP, ClusterIPs: []netip.Addr{ip("10.100.0.7")},
			Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}}},
		Slices: []model.Slice{{Name: shop("web-x7"), Service: "web", Endpoints: []model.Endpoint{
			{Addr: ip("10.0.1.1"), Node: "n1", Zone: "a", Pod: "web-0", Ready: true, Serving: true},
			{Addr: ip("10.0.1.2"), Node: "n3", Ready: true, Serving: true}},
			Faults: []string{`endpoint "nonsense" is not an address: left out`}}},
		Pods: []model.Pod{{Name: shop("web-0"), Node: "n1", MilliCPU: 250}},
		Routes: []model.ZoneRoute{{Name: shop("db")}, {Name: shop("ghost"), Invalid: "spec.maxOverload: 0 is less than 0.01"},
			{Name: shop("web"), Invalid: "spec.maxOverload: .nan is no number to plan with"}},
		Namespaces: map[string]model.Mode{"shop": model.Optimal},
		Skipped: map[model.Name]string{
			shop("db"):   "a headless Service has no address: its clients choose among endpoints themselves",
			shop("mail"): "an ExternalName Service has no endpoints"},
	}
	if diff := cmp.Diff(want, got, byValue, cmpopts.IgnoreFields(Dump{}, "Notes")); diff != "" {
		t.Error(diff)
	}
	notes := []string{
		"EndpointSlice shop/web-x7: endpoints[].addresses: 1 of 3 endpoints have no address of type IPv4: left out",
		"EndpointSlice shop/web-x7: endpoints[].nodeName: there is no Node n3",
		"EndpointSlice shop/web-x7: endpoints[].zone: missing at 1 of 2 endpoints, first at 10.0.1.2",
		"Namespace other: metadata.labels[zonewise.io/mode]: \"optimal\" is none of Optimal, Observe, Off: it counts as not set",
		"Node n2: metadata.labels[topology.kubernetes.io/zone]: missing: its clients and endpoints are in no zone",
		"ZoneRoute shop/db: metadata.name: nothing to plan for this Service: a headless Service has no address: its clients choose among endpoints themselves",
		"ZoneRoute shop/ghost: metadata.name: there is no Service shop/ghost",
		"ZoneRoute shop/ghost: spec.maxOverload: 0 is less than 0.01",
		"ZoneRoute shop/web: spec.maxOverload: .nan is no number to plan with",
		"apps/v1 Deployment: kind: not needed: 1 skipped",
		"serving.example.com/v1 Service: kind: not needed: 1 skipped",
	}
	if diff := cmp.Diff(notes, lines(got.Notes)); diff != "" {
		t.Error(diff)
	}
}

// The same cluster in other clothes is the same.
func TestFormats(t *testing.T) {
	text := strings.Replace(cluster(t), "maxOverload: .nan", "maxOverload: 0.5", 1) // JSON has no NaN
	want := read(t, text)
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []any }
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	var documents, values []string
	for _, i := range list.Items {
		y, _ := yaml.Marshal(i)
		documents = append(documents, string(y))
		j, _ := yaml.YAMLToJSON(y)
		values = append(values, string(j))
	}
	indented := "items:\n  " + strings.ReplaceAll(strings.Join(strings.Split(text, "\n")[2:], "\n"), "\n", "\n  ")
	indented = strings.Replace(indented, "  kind: List\n  metadata:\n    resourceVersion: \"\"\n", "kind: List\n", 1)
	for name, text := range map[string]string{
		"JSON list":           string(asJSON),
		"JSON values":         strings.Join(values, "\n"),
		"JSON array":          "[" + strings.Join(values, ",") + "]",
		"YAML documents":      strings.Join(documents, "---\n"),
		"markers everywhere":  "# a dump\n---\n" + strings.Join(documents, "...\n--- # next\n") + "---\n",
		"YAML list of JSON":   "kind: List\napiVersion: v1\nitems: [" + strings.Join(values, ", ") + "]\n",
		"lists one by one":    "---\n" + text + "---\napiVersion: v1\nitems: []\nkind: List\n",
		"items indented":      indented,
		"Windows' line ends":  strings.ReplaceAll(text, "\n", "\r\n"),
		"byte order mark":     "\xef\xbb\xbf" + text,
		"comments, no items":  "# nothing\n\n" + text,
		"the same list twice": text + "---\n" + text,
	} {
		got := read(t, text)
		if name == "the same list twice" {
			got.Notes = want.Notes // the unknown kinds count twice
		}
		if diff := cmp.Diff(want, got, byValue); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTypedLists(t *testing.T) {
	for name, text := range map[string]string{
		"JSON": `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"a"}},"status":{"allocatable":{"cpu":"2"}}}]}`,
		"YAML": "apiVersion: v1\nkind: NodeList\nitems:\n- metadata:\n    name: n1\n    labels: {topology.kubernetes.io/zone: a}\n  status: {allocatable: {cpu: 2}}\n",
	} {
		got := read(t, text)
		want := []model.Node{{Name: "n1", Zone: "a", MilliCPU: 2000}}
		if diff := cmp.Diff(want, got.Nodes, byValue); diff != "" || len(got.Notes) != 0 {
			t.Errorf("%s: %s%v", name, diff, got.Notes)
		}
	}
}

// Wherever a dump is cut off, that is said, and what came before is read.
func TestCutOff(t *testing.T) {
	text := strings.Replace(cluster(t), "maxOverload: .nan", "maxOverload: 0.5", 1)
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	whole := read(t, text)
	for name, text := range map[string]string{"YAML": text, "JSON": string(asJSON)} {
		complete := strings.LastIndex(text, "kind") // from there on nothing is missing that we need
		for at := len("apiVersion: v1\nitems:\n"); at < complete; at += 7 {
			d, err := Read(strings.NewReader(text[:at]))
			if err != nil {
				t.Fatalf("%s cut at %d: %v", name, at, err)
			}
			if !strings.Contains(strings.Join(lines(d.Notes), "\n"), "input: ends in the middle") {
				t.Fatalf("%s cut at %d: notes %q", name, at, lines(d.Notes))
			}
			for i, n := range d.Nodes {
				if diff := cmp.Diff(whole.Nodes[i], n, byValue); diff != "" {
					t.Fatalf("%s cut at %d: half a Node: %s", name, at, diff)
				}
			}
			for _, s := range d.Slices {
				if diff := cmp.Diff(whole.Slices[0], s, byValue); diff != "" {
					t.Fatalf("%s cut at %d: half a slice: %s", name, at, diff)
				}
			}
		}
	}
}

func TestBadInput(t *testing.T) {
	node := `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"a"}},"status":{"allocatable":{"cpu":"2"}}}`
	route := func(name, spec string) string {
		return fmt.Sprintf("apiVersion: zonewise.io/v1alpha1\nkind: ZoneRoute\nmetadata: {namespace: shop, name: %s}\nspec: %s\n", name, spec)
	}
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec: {clusterIP: 10.0.0.1}\n---\n" + node + "\n"
	for _, c := range []struct {
		name, text string
		notes      []string
	}{
		{"two ZoneRoutes for one Service", route("web", "{mode: Observe}") + "---\n" + route("web", "{mode: Optimal}") + service,
			[]string{"ZoneRoute shop/web: more than once in the input, and not the same: the last counts"}},
		{"the same ZoneRoute twice", route("web", "{mode: 'Off'}") + "---\n" + route("web", "{mode: 'Off'}") + service, nil},
		{"Off without quotes", route("web", "{mode: Off}") + service,
			[]string{"ZoneRoute shop/web: spec.mode: bool where string belongs; YAML takes Off without quotes for false"}},
		{"a word for a number", route("web", "{mode: Optimal, maxOverload: much}") + service,
			[]string{"ZoneRoute shop/web: spec.maxOverload: string where float64 belongs"}},
		{"infinite", "apiVersion: zonewise.io/v1alpha1\nkind: ZoneRoute\nmetadata: {namespace: shop, name: web}\nspec:\n  demand:\n    bytesPerSecond: +.Inf\n" + service,
			[]string{"ZoneRoute shop/web: spec.demand.bytesPerSecond: +.Inf is no number to plan with"}},
		{"a zone twice", route("web", "{demand: {source: Static, shares: [{zone: a, share: 1}, {zone: a, share: 2}]}}") + service,
			[]string{`ZoneRoute shop/web: spec.demand.shares: zone "a" more than once`}},
		{"not YAML", "kind: Node\n  name: [\n---\n" + node + "\n",
			[]string{"Node without a name: yaml: line 2: mapping values are not allowed in this context"}},
		{"prose", "no dump at all\n---\n" + node + "\n", []string{"object 1 of the input: no Kubernetes object: json: cannot unmarshal string into Go value of type struct { APIVersion string; Kind string; Metadata struct { Namespace string; Name string } }"}},
		{"broken JSON", node + "{]" + node, []string{"input: after object 1, byte 141: invalid character ']': what follows is not read"}},
		{"a number between", node + "7" + node, []string{"input: after object 1: 7 is no object"}},
		{"items that are none", `{"kind":"List","items":7}` + node, []string{"input: after object 0, byte 24: a list without items: what follows is not read", "input: after object 0: items is no array", "input: no Nodes in it: nobody knows where clients are"}},
		{"no kind", `{"metadata":{"name":"x"}}` + node, []string{"object 1 of the input: kind: missing: no Kubernetes object"}},
		{"no name", `{"apiVersion":"v1","kind":"Node"}` + node, []string{"Node without a name: metadata.name: missing"}},
		{"no CPU", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"a"}}}`,
			[]string{"Node n1: status.allocatable.cpu: missing: it adds nothing to the demand of its zone"}},
		{"CPU of no number", strings.Replace(node, `"2"`, `"two"`, 1) + strings.Replace(node, "n1", "n2", 1),
			[]string{"Node n1: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': left out"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := read(t, c.text)
			if diff := cmp.Diff(c.notes, lines(d.Notes)); diff != "" {
				t.Error(diff)
			}
			if c.name != "items that are none" && len(d.Nodes) != 1 {
				t.Errorf("nodes %v", d.Nodes)
			}
			for _, r := range d.Routes {
				// What a note says of a spec's field, the ZoneRoute says too, so that nobody plans by a default.
				if bad := strings.Contains(strings.Join(c.notes, ""), "spec."); bad != (r.Invalid != "") {
					t.Errorf("invalid %q", r.Invalid)
				}
			}
		})
	}
}

func TestNothing(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n---\n", "null\n", "[]", "{}"} {
		if d, err := Read(strings.NewReader(text)); err == nil && len(d.Notes) == 0 {
			t.Errorf("%q: neither error nor note", text)
		}
	}
}

func TestReaderFails(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, text := range []string{"{\"apiVersion\":", "apiVersion: v1\n"} {
		_, err := Read(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A thousand zones are as good as three.
func TestManyZones(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Node\nmetadata: {name: n%04d, labels: {topology.kubernetes.io/zone: z%d}}\nstatus: {allocatable: {cpu: 1}}\n", i, i)
	}
	d := read(t, text.String())
	if len(d.Nodes) != 1000 || d.Nodes[999].Zone != "z999" || len(d.Notes) != 0 {
		t.Errorf("%d nodes, notes %v", len(d.Nodes), d.Notes)
	}
}

// Whatever the input, Read ends without a panic, and gives each name once, in order.
func FuzzRead(f *testing.F) {
	text := cluster(f)
	f.Add([]byte(text))
	asJSON, _ := yaml.YAMLToJSON([]byte(strings.Replace(text, ".nan", "1", 1)))
	f.Add(asJSON)
	f.Add([]byte("kind: List\napiVersion: v1\nitems: [{kind: Node, apiVersion: v1, metadata: {name: a}}]\n"))
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"))
	f.Add([]byte("items:\n- kind: Node\n  apiVersion: v1\n  metadata:\n    name: n\n- \n-\nkind: NodeList\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Read(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		for i := 1; i < len(d.Nodes); i++ {
			if d.Nodes[i-1].Name >= d.Nodes[i].Name {
				t.Errorf("nodes %v", d.Nodes)
			}
		}
		for i := 1; i < len(d.Routes); i++ {
			if d.Routes[i-1].Compare(d.Routes[i].Name) >= 0 {
				t.Errorf("routes %v", d.Routes)
			}
		}
		for _, n := range d.Notes {
			if n.Object == "" || n.Message == "" {
				t.Errorf("note %+v", n)
			}
		}
	})
}
