//go:build bench

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
	"github.com/zonewise/zonewise/lab/vpccni"
)

// The trace: how many pods there are to be on a node, and for how many pauses. Many go and come again within
// the time that addresses rest; at the end there is time to give them back. -args -pause 10s is a short one.
var (
	pause    = flag.Duration("pause", time.Minute, "the unit of time of the trace")
	settings = flag.String("settings", "", "of both plugins, such as WARM_IP_TARGET=2,MINIMUM_IP_TARGET=4")
	steps    = []struct {
		pods   int32
		pauses float64
	}{{8, 1}, {15, 1}, {4, 0.2}, {12, 1}, {0, 2}}
)

// cloudOfTrace is one in which things take time, as on EC2.
var cloudOfTrace = topology.CloudConfig{AttachTime: "3s", DetachTime: "3s", MetadataLag: "1s", Latency: "100ms", Throttle: true}

// moment is what there is at a time of the trace.
type moment struct {
	interfaces, addresses int // addresses that pods can have
}

// traced is what a plugin did with the trace.
type traced struct {
	peer    string
	at      []moment // at the end of each step
	most    moment
	hours   float64 // of an address, over the trace
	calls   map[string]int
	refused int
	waits   []time.Duration // of each pod, from its creation until it was Ready
	retries int             // sandboxes that were refused, and tried again
}

// TestTrace runs the same pods at the same times through AWS's own CNI and through ours, each on the one node of
// a lab of its own, and prints side by side what it cost and how long they waited. It is no benchmark that
// is repeated: the times that matter are those of cooldowns and attachments.
func TestTrace(t *testing.T) {
	var all []traced
	for _, peer := range []struct{ name, cni string }{{"aws-vpc-cni", topology.CNINone}, {"zonewise", topology.CNIZonewise}} {
		all = append(all, trace(t, peer.name, peer.cni))
	}
	t.Logf("pods on a t3.medium, for times of %s: %v; %s\n%s", *pause, steps, cmp.Or(*settings, "settings as they are"), table(all))
}

func trace(t *testing.T, peer, cni string) traced {
	file := filepath.Join(t.TempDir(), "lab.yaml")
	environment := map[string]any{}
	for _, setting := range strings.FieldsFunc(*settings, func(r rune) bool { return r == ',' }) {
		name, value, _ := strings.Cut(setting, "=")
		environment[name] = value
	}
	config, err := json.Marshal(topology.Config{
		Name: *labName, CNI: cni, Offline: true, Zones: topology.Spread(1, 1), Cloud: cloudOfTrace,
		Values: map[string]any{"cni": map[string]any{"env": environment}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	lab(t, "up", "-f", file)
	defer lab(t, "down")
	client, ctx := clientOf(t), context.Background()
	if cni == topology.CNINone {
		bring(t, environment)
	}
	quiet(t, client)
	before := calls(t)
	watching, stop := context.WithCancel(ctx)
	seen := watch(t, watching, client)
	out := traced{peer: peer}
	begin, tick := time.Now(), time.NewTicker(250*time.Millisecond)
	defer tick.Stop()
	deploy(t, client)
	end, looked := begin, begin
	for _, s := range steps {
		scale(t, client, s.pods)
		for end = end.Add(time.Duration(s.pauses * float64(*pause))); time.Now().Before(end); <-tick.C {
			now := look(t)
			out.most.interfaces, out.most.addresses = max(out.most.interfaces, now.interfaces), max(out.most.addresses, now.addresses)
			out.hours += float64(now.addresses) * time.Since(looked).Hours()
			looked = time.Now()
		}
		out.at = append(out.at, look(t))
	}
	stop()
	out.waits = seen()
	out.calls = calls(t)
	for action, n := range before {
		if out.calls[action] -= n; out.calls[action] == 0 {
			delete(out.calls, action)
		}
	}
	out.refused = out.calls[refusals]
	delete(out.calls, refusals)
	out.retries = retries(t, client)
	return out
}

// bring installs AWS's own CNI, as a user does.
func bring(t testing.TB, environment map[string]any) {
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(bin, "vpccni")
	lab(t, append([]string{"load"}, vpccni.Archives(dir)...)...)
	kubectl := func(args ...string) {
		run(t, filepath.Join(bin, "kubectl"), append([]string{"--kubeconfig", cluster.PathsOf(*labName).Kubeconfig()}, args...)...)
	}
	kubectl("apply", "-f", filepath.Join(dir, vpccni.Manifest))
	for name, value := range environment {
		kubectl("-n", "kube-system", "set", "env", "daemonset/aws-node", fmt.Sprint(name, "=", value))
	}
}

// quiet waits until the node is Ready and nothing of the cluster's own has an address, and then until the
// node has what it keeps for no pods.
func quiet(t testing.TB, client kubernetes.Interface) {
	ctx := context.Background()
	for _, name := range []string{"coredns", "zonewise-controller"} {
		if _, err := client.AppsV1().Deployments("kube-system").Patch(ctx, name, "application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the node is Ready, and has no pods but those of its network", func() (bool, error) {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := slices.ContainsFunc(nodes.Items[0].Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		return ready && err == nil && !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return !p.Spec.HostNetwork || p.Status.Phase != corev1.PodRunning }), err
	})
	last, since := look(t), time.Now()
	await(t, "the node's interfaces have been as they are for longer than addresses rest and are kept", func() (bool, error) {
		if now := look(t); now != last {
			last, since = now, time.Now()
		}
		return last.addresses > 0 && time.Since(since) > 100*time.Second, nil
	})
}

// look reads the region's records in their file: a question to the API would be counted.
func look(t testing.TB) moment {
	data, err := os.ReadFile(cluster.PathsOf(*labName).Cloud())
	if err != nil {
		t.Fatal(err)
	}
	var records ec2.Records
	if err := json.Unmarshal(data, &records); err != nil {
		t.Fatal(err)
	}
	var m moment
	for _, n := range records.Interfaces {
		m.interfaces++
		m.addresses += max(0, len(n.Addresses)-1) + 16*len(n.Prefixes)
	}
	return m
}

// refusals is the name under which calls counts what was refused.
const refusals = "(refused)"

// calls are how often the API was asked, by action.
func calls(t testing.TB) map[string]int {
	s, err := cluster.GetStatus(context.Background(), *labName)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, c := range s.Cloud.Calls {
		out[c.Action] = c.Calls
		for _, n := range c.Refused {
			out[refusals] += n
		}
	}
	return out
}

// watch notes when pods come and when they are Ready, by its own clock: the API's has whole seconds.
func watch(t testing.TB, ctx context.Context, client kubernetes.Interface) (waits func() []time.Duration) {
	w, err := client.CoreV1().Pods(metav1.NamespaceDefault).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	came, took := map[string]time.Time{}, map[string]time.Duration{}
	var done sync.WaitGroup
	done.Go(func() {
		for e := range w.ResultChan() {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			name := pod.Name
			if _, known := came[name]; !known {
				came[name] = time.Now()
			}
			ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			})
			if _, known := took[name]; ready && !known {
				took[name] = time.Since(came[name])
			}
		}
	})
	return func() []time.Duration {
		w.Stop()
		done.Wait()
		for name := range came {
			if _, ok := took[name]; !ok {
				t.Errorf("pod %s was never Ready", name)
			}
		}
		return slices.Sorted(maps.Values(took))
	}
}

// retries counts sandboxes that could not be made at once.
func retries(t testing.TB, client kubernetes.Interface) (n int) {
	events, err := client.CoreV1().Events(metav1.NamespaceDefault).List(context.Background(), metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		n += int(max(e.Count, 1))
	}
	return n
}

// table shows all peers side by side.
func table(all []traced) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(traced) any) {
		fmt.Fprintf(w, "%s\t", name)
		for _, p := range all {
			fmt.Fprintf(w, "%v\t", cell(p))
		}
		fmt.Fprintln(w)
	}
	row("", func(p traced) any { return p.peer })
	for i, s := range steps {
		row(fmt.Sprintf("interfaces, addresses at the end of %d pods", s.pods), func(p traced) any { return fmt.Sprint(p.at[i].interfaces, ", ", p.at[i].addresses) })
	}
	row("most", func(p traced) any { return fmt.Sprint(p.most.interfaces, ", ", p.most.addresses) })
	row("address-hours", func(p traced) any { return fmt.Sprintf("%.2f", p.hours) })
	total := func(p traced) (n int) {
		for _, k := range p.calls {
			n += k
		}
		return n
	}
	row("API calls", func(p traced) any { return total(p) })
	actions := map[string]bool{}
	for _, p := range all {
		for action := range p.calls {
			actions[action] = true
		}
	}
	for _, action := range slices.SortedFunc(maps.Keys(actions), cmp.Compare[string]) {
		row("  "+action, func(p traced) any { return p.calls[action] })
	}
	row("refused", func(p traced) any { return p.refused })
	row("pods", func(p traced) any { return len(p.waits) })
	for _, q := range []struct {
		name string
		at   float64
	}{{"creation to Ready, median", 0.5}, {"p90", 0.9}, {"longest", 1}} {
		row(q.name, func(p traced) any { return fmt.Sprintf("%.1f s", quantile(p.waits, q.at).Seconds()) })
	}
	row("all pods together", func(p traced) any {
		var sum time.Duration
		for _, d := range p.waits {
			sum += d
		}
		return fmt.Sprintf("%.0f s", sum.Seconds())
	})
	row("sandboxes refused", func(p traced) any { return p.retries })
	_ = w.Flush()
	return b.String()
}

// quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
