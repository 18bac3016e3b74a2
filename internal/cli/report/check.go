package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
)

// CheckSchema names the form of Check. Fields are only ever added to it.
const CheckSchema = "zonewise.check/v1"

// Check is how the nodes are, and what deserves a look.
type Check struct {
	Schema   string      `json:"schema"`
	Nodes    []CheckNode `json:"nodes"`
	Findings []Finding   `json:"findings"`
}

// CheckNode is one node whose agent answered.
type CheckNode struct {
	Node     string      `json:"node"`
	Zone     string      `json:"zone"`
	Version  string      `json:"version"`
	Ready    bool        `json:"ready"`
	Services int         `json:"services"`
	Faults   int         `json:"faults"`
	Paths    []view.Path `json:"paths"`
	Meter    *view.Meter `json:"meter,omitempty"`
}

// Finding is something that deserves a look, and what mends it.
type Finding struct {
	Nodes     []string `json:"nodes"` // where it is so; empty: it is of the object itself
	Kind      string   `json:"kind,omitempty"`
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	What      string   `json:"what"`
	Mend      string   `json:"mend"`
}

// Answers are what a check is made of.
type Answers struct {
	Nodes  []string          // of the cluster
	Silent map[string]string // nodes whose agent did not answer, and why
	Status []view.Status
	Faults []view.Faults

	Addresses   []view.Addresses  // of nodes whose pods get them from the cloud by us
	NoAddresses map[string]string // such nodes whose daemon did not answer, and why
	Now         time.Time
}

// MakeCheck judges the answers. What is the same on many nodes is one finding.
func MakeCheck(a Answers) Check {
	out := Check{Schema: CheckSchema, Nodes: []CheckNode{}, Findings: []Finding{}}
	found := map[string]*Finding{}
	add := func(node string, f Finding) {
		key := strings.Join([]string{f.Kind, f.Namespace, f.Name, f.What, f.Mend}, "\x00")
		if found[key] == nil {
			f.Nodes = []string{}
			found[key] = &f
		}
		if node != "" && !slices.Contains(found[key].Nodes, node) {
			found[key].Nodes = append(found[key].Nodes, node)
		}
	}
	for _, s := range a.Status {
		out.Nodes = append(out.Nodes, CheckNode{s.Node, s.Zone, s.Version, s.Ready, s.Services, s.Faults, s.Paths, s.Meter})
		ofNode(s, func(f Finding) { add(s.Node, f) })
	}
	withoutAgent(a, add)
	versions(a.Status, add)
	ofAddresses(a, add)
	for _, n := range a.Faults {
		for _, f := range n.Faults {
			node, mend := "", "Correct the object; everything else works in spite of it."
			if f.Here {
				node, mend = n.Node, "The object is right; look at the node. Everything else works in spite of it."
			}
			add(node, Finding{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, What: f.Problem, Mend: mend})
		}
	}
	for _, f := range found {
		slices.Sort(f.Nodes)
		out.Findings = append(out.Findings, *f)
	}
	slices.SortFunc(out.Nodes, func(a, b CheckNode) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node)) })
	slices.SortFunc(out.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.What, b.What), slices.Compare(a.Nodes, b.Nodes))
	})
	return out
}

// ofNode finds what an agent says of itself and its node.
func ofNode(s view.Status, add func(Finding)) {
	switch {
	case !s.Ready:
		add(Finding{What: "The node is not served yet: " + s.Reason + ".",
			Mend: "Wait; if it stays, see the agent's log. What an earlier agent programmed is in force."})
	case s.Reason != "":
		add(Finding{What: "Programming fails: " + s.Reason + ".", Mend: "The agent tries again and again; see its log."})
	}
	for _, p := range s.Paths {
		if !p.On && !p.Unwanted {
			add(Finding{What: "The " + p.Name + " path is off: " + p.Why + ".", Mend: mendPath(p.Why)})
		}
	}
	ofMeter(s.Meter, add)
	for _, o := range s.Others {
		add(Finding{What: "Another proxy answers for Services, too: " + o.Who + " (" + o.What + ").",
			Mend: "When that proxy does not run on the node any more: " + o.Mend + "."})
	}
}

// ofMeter finds what an agent says of its meter.
func ofMeter(m *view.Meter, add func(Finding)) {
	switch {
	case m == nil || m.Unwanted:
		return
	case !m.On && m.Why != "":
		add(Finding{What: "Traffic is not counted: " + m.Why + ".", Mend: mendMeter(m.Why)})
	case m.On && m.Why != "":
		add(Finding{What: "Counted traffic is not told: " + m.Why + ".",
			Mend: "The kernel counts on, and the agent tries again; see its log. Services work without it."})
	}
	if m.Reports != "" {
		add(Finding{What: "The controller does not get what the node counts: " + m.Reports + ".",
			Mend: "It waits on the node, with less detail as time goes by. See the controller's log; agent.meter=off in the chart says that nobody wants it."})
	}
}

// mendMeter says what would make a node count.
func mendMeter(why string) string {
	const fine = " Services work without it; agent.meter=off in the chart says that this is intended."
	for _, m := range []struct{ word, mend string }{
		{"bpffs", "Mount a BPF file system at the node's /sys/fs/bpf."},
		{"BTF", "Take a kernel with BTF (CONFIG_DEBUG_INFO_BTF)."},
		{"CAP_BPF", "Give the agent CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, as the chart does."},
		{"another process", "Another agent counts on this node: end it."},
	} {
		if strings.Contains(why, m.word) {
			return m.mend + fine
		}
	}
	return "It needs Linux 6.4 or newer with connection tracking; see the agent's log." + fine
}

// mendPath says what would turn the socket path on.
func mendPath(why string) string {
	const fine = " Services work without it, each new connection a few microseconds slower; agent.socket=off in the chart says that this is intended."
	for _, m := range []struct{ word, mend string }{
		{"bpffs", "Mount a BPF file system at the node's /sys/fs/bpf."},
		{"cgroup v2", "Boot the node with cgroup v2 (systemd.unified_cgroup_hierarchy=1)."},
		{"BTF", "Take a kernel with BTF (CONFIG_DEBUG_INFO_BTF)."},
		{"CAP_BPF", "Give the agent CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, as the chart does."},
		{"--masquerade-all", "Without agent.masqueradeAll in the chart it would be on."},
		{"failed for", "See the agent's log, and restart the agent."},
	} {
		if strings.Contains(why, m.word) {
			return m.mend + fine
		}
	}
	return "It needs Linux 5.14 or newer with cgroup v2." + fine
}

// withoutAgent finds the nodes of which nothing is known.
func withoutAgent(a Answers, add func(string, Finding)) {
	for _, n := range a.Nodes {
		if why, silent := a.Silent[n]; silent {
			mend := "See the pod: kubectl describe, kubectl logs."
			if strings.Contains(why, "404") {
				mend = "The agent is older than this command: upgrade the chart."
			}
			add(n, Finding{What: "The agent does not answer: " + why + ".", Mend: mend})
		} else if !slices.ContainsFunc(a.Status, func(s view.Status) bool { return s.Node == n }) {
			add(n, Finding{What: "No agent runs here.", Mend: "Another proxy must serve the node; otherwise look why the DaemonSet zonewise-agent leaves it out."})
		}
	}
}

// versions finds the agents that are of another build than most are.
func versions(all []view.Status, add func(string, Finding)) {
	number := map[string]int{}
	for _, s := range all {
		number[s.Version]++
	}
	most := ""
	for v, n := range number {
		if n > number[most] || n == number[most] && v > most {
			most = v
		}
	}
	for _, s := range all {
		if s.Version != most {
			add(s.Node, Finding{What: "The agent is of version " + s.Version + ", most are of " + most + ".",
				Mend: "An upgrade has not come here: kubectl rollout status daemonset/zonewise-agent."})
		}
	}
}

// CheckText writes the form for people.
func CheckText(w io.Writer, c Check) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	line(t, "NODE", "ZONE", "READY", "PATHS", "METER", "SERVICES", "FAULTS", "VERSION")
	for _, n := range c.Nodes {
		var on []string
		for _, p := range n.Paths {
			if p.On {
				on = append(on, p.Name)
			}
		}
		line(t, n.Node, orNone(n.Zone), map[bool]string{true: "yes", false: "no"}[n.Ready], orNone(strings.Join(on, ",")),
			orNone(meterWord(n.Meter)), strconv.Itoa(n.Services), strconv.Itoa(n.Faults), n.Version)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for _, f := range c.Findings {
		if _, err := fmt.Fprintf(w, "\n%s\n", where(f)); err != nil {
			return err
		}
		if err := paragraph(w, "  ", sentence(f.What)); err != nil {
			return err
		}
		if err := paragraph(w, "  ", f.Mend); err != nil {
			return err
		}
	}
	if len(c.Findings) == 0 {
		_, err := fmt.Fprintln(w, "\nNothing found.")
		return err
	}
	return nil
}

// meterWord is empty where the agent says nothing of it.
func meterWord(m *view.Meter) string {
	switch {
	case m == nil:
		return ""
	case m.On:
		return "yes"
	case m.Unwanted:
		return "off"
	}
	return "no"
}

// fewNodes is how many nodes a line names.
const fewNodes = 4

func where(f Finding) string {
	var out []string
	if f.Kind != "" {
		name := f.Name
		if f.Namespace != "" {
			name = f.Namespace + "/" + name
		}
		out = append(out, f.Kind+" "+name)
	}
	if n := len(f.Nodes); n > fewNodes {
		out = append(out, strings.Join(f.Nodes[:fewNodes], ", ")+fmt.Sprintf(" and %d more", n-fewNodes))
	} else if n > 0 {
		out = append(out, strings.Join(f.Nodes, ", "))
	}
	return strings.Join(out, ", on ")
}
