package bench

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// TestObjects holds what the cluster is said to be against where its addresses lead.
func TestObjects(t *testing.T) {
	serviceNet := netip.MustParsePrefix(serviceRange)
	for _, l := range append(Full().cold, load{Services: sticky, Endpoints: 1_000, Affinity: true}) {
		seen, services, endpoints := map[string]bool{}, 0, 0
		for _, o := range l.objects() {
			switch o := o.(type) {
			case *corev1.Service:
				services++
				if ip := netip.MustParseAddr(o.Spec.ClusterIP); !serviceNet.Contains(ip) || seen[o.Spec.ClusterIP] {
					t.Fatalf("%s has address %v", o.Name, ip)
				}
				seen[o.Spec.ClusterIP] = true
			case *discoveryv1.EndpointSlice:
				if len(o.Endpoints) == 0 || len(o.Endpoints) > perSlice {
					t.Fatalf("%s has %d endpoints", o.Name, len(o.Endpoints))
				}
				for _, e := range o.Endpoints {
					endpoints++
					a := netip.MustParseAddr(e.Addresses[0]).As4()
					if a[0] != 10 || a[1] < firstRange || a[1] > deadRange || seen[e.Addresses[0]] {
						t.Fatalf("%s has endpoint %v", o.Name, e.Addresses)
					}
					seen[e.Addresses[0]] = true
				}
			}
		}
		want := 0
		for _, s := range specials() {
			want += len(s.addrs)
		}
		if services != l.Services+len(specials()) || endpoints != l.Services*l.Endpoints+want {
			t.Errorf("%+v: %d Services, %d endpoints", l, services, endpoints)
		}
	}
}

// TestVersionsDiffer: a slice that did not change would be no change.
func TestVersionsDiffer(t *testing.T) {
	l := load{Services: 10, Endpoints: 2}
	first, second := l.slices(3, 0)[0].Endpoints[0].Addresses[0], l.slices(3, 1)[0].Endpoints[0].Addresses[0]
	if first == second || first != l.slices(3, 2)[0].Endpoints[0].Addresses[0] {
		t.Errorf("%s, then %s", first, second)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		of   []float64
		part float64
		want float64
	}{{[]float64{7}, .5, 7}, {[]float64{1, 2}, .5, 1}, {[]float64{1, 2, 3}, .5, 2}, {hundred, .5, 50}, {hundred, .99, 99}, {hundred, 1, 100}} {
		if got := quantile(c.of, c.part); got != c.want {
			t.Errorf("%v of %d values: %v, want %v", c.part, len(c.of), got, c.want)
		}
	}
}

// TestBeyond: what the machine does to both of a pair is in no difference.
func TestBeyond(t *testing.T) {
	if got := medianBeyond([]float64{21, 31, 101, 22}, []float64{20, 30, 100, 90}); got != 1 {
		t.Errorf("%v, want 1", got)
	}
}

func sample() (Result, []key) {
	r := newRecord()
	slow := key{"connect", 1_000, podToService, peer.KubeProxyNFT}
	fast := key{"connect", 1_000, podToService, peer.Direct}
	none := key{"connect", 1_000, podToService, peer.KubeProxyIPTables}
	r.note(none, "µs", "iptables: not found\nand more of the log")
	r.add(slow, "µs", 44, 30, 31)
	r.add(fast, "µs", 20)
	r.add(slow, "µs", 50)
	r.note(slow, "µs", "not any more")
	rows := r.rows()
	sortRows(rows, Names(), peer.Kinds())
	return Result{Schema: Schema, Machine: "one", Rounds: 2, Rows: rows}, []key{slow, fast, none}
}

func TestRows(t *testing.T) {
	r, keys := sample()
	want := Row{Benchmark: "connect", Peer: "kube-proxy-nft", Services: 1_000, Metric: podToService, Unit: "µs",
		Min: 30, Median: 31, P99: 50, Max: 50, Values: 4, Rounds: 2, RoundMin: 31, RoundMax: 50}
	if len(r.Rows) != 3 || r.Rows[1] != want || r.Rows[2].Note == "" {
		t.Errorf("%+v", r.Rows)
	}
	if m := missing(keys, r.Rows, false); m != nil {
		t.Errorf("missing %q", m)
	}
	if m := missing(append(keys, key{metric: "new", peer: "x"}), r.Rows, true); len(m) != 2 || !strings.Contains(m[0], "iptables: not found") || !strings.Contains(m[1], "no row") {
		t.Errorf("missing %q", m)
	}
}

func TestTable(t *testing.T) {
	r, _ := sample()
	var out strings.Builder
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"connect, 1,000 Services: pod to ClusterIP (µs)", "kube-proxy-nft       31.0    30.0  50.0  50.0  31.0 to 50.0       1.55      1.00", "iptables: not found"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	for f, want := range map[float64]string{0: "0", .01234: "0.0123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -5000.4: "-5,000"} {
		if got := figure(f); got != want {
			t.Errorf("%v is written %s, want %s", f, got, want)
		}
	}
}

func TestPage(t *testing.T) {
	r, _ := sample()
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("before\n"+begins("aims")+"stale\n"+ends("aims")+"\n"+begins("figures")+"stale\n"+ends("figures")+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.page(file); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "| 1,000 | pod to ClusterIP (µs) | 20.0 | 31.0 | [1] |\n\n[1] iptables: not found\n"
	if got := string(text); !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "\nafter\n") || strings.Contains(got, "stale") || !strings.Contains(got, "aim | 1,000 Services |") || strings.Count(got, want) != 1 {
		t.Error(got)
	}
	ours, err := os.ReadFile(filepath.Join("..", "..", "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for part := range r.generated() {
		if strings.Count(string(ours), begins(part)) != 1 || strings.Count(string(ours), ends(part)) != 1 {
			t.Errorf("docs/performance.md has no place for %s", part)
		}
	}
	if err := r.page(os.DevNull); err == nil {
		t.Error("a page without a place for the table")
	}
}

func TestFiles(t *testing.T) {
	r, _ := sample()
	dir := filepath.Join(t.TempDir(), "out")
	name, err := r.write(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Read(name); err != nil || !slices.Equal(again.Rows, r.Rows) {
		t.Errorf("%+v, %v", again, err)
	}
	names, err := r.plot(dir)
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil || !strings.Contains(string(text), "kube-proxy-nft") {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestWanted: each benchmark asks for rows of those who can have them, once.
func TestWanted(t *testing.T) {
	for name, c := range map[string]Config{"full": Full(), "short": Short()} {
		c.Peers = peer.Kinds()
		want := (&run{Config: c}).want()
		seen := map[key]bool{}
		benchmarks := map[string]bool{}
		for _, k := range want {
			if seen[k] {
				t.Errorf("%s: %v twice", name, k)
			}
			seen[k], benchmarks[k.benchmark] = true, true
			if (k.benchmark == "cold-start" || k.benchmark == "memory") && !k.peer.Services() {
				t.Errorf("%s: %v", name, k)
			}
		}
		if len(benchmarks) != len(Names()) {
			t.Errorf("%s: %v", name, benchmarks)
		}
	}
}

// TestOut: one peer's trouble does not end the others' run, and is told unless it is slowness alone.
func TestOut(t *testing.T) {
	b := churn()
	r := &run{Config: Short(), record: newRecord(), broken: map[broken]bool{}}
	r.Log = io.Discard
	s := &stage{load: load{Services: 1_000, Endpoints: 2}, benchmark: b}
	slow, wrong := &node{kind: peer.KubeProxyNFT}, &node{kind: peer.Zonewise}
	r.out(s, slow, fmt.Errorf("%w: 1m", errTooSlow))
	if len(r.failed) != 0 || slow.out == "" {
		t.Errorf("slow: %v, %q", r.failed, slow.out)
	}
	r.out(s, wrong, errors.New("refused"))
	if len(r.failed) != 1 || !strings.Contains(r.failed[0].Error(), "churn, 1000 Services of 2 endpoints: zonewise: refused") {
		t.Errorf("wrong: %v", r.failed)
	}
	rows := r.record.rows()
	if len(rows) != 2*len(b.metrics(r.effort, s.load)) || rows[0].Note == "" {
		t.Errorf("%+v", rows)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"--help"}, 0, "-short"},
		{[]string{"--only", "nothing"}, 2, `no "nothing"`},
		{[]string{"--peers", "cilium"}, 2, `no "cilium"`},
		{[]string{"more"}, 2, `unexpected "more"`},
		{[]string{"driver", "first"}, 2, "first"},
		{[]string{"--from", "nowhere.json"}, 1, "nowhere.json"},
	} {
		var stdout, stderr strings.Builder
		if got := Main(append([]string{"bench"}, c.args...), &stdout, &stderr); got != c.want || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: %d\n%s", c.args, got, &stderr)
		}
	}
	if all, err := pick("", Names()); err != nil || len(all) != len(Names()) {
		t.Errorf("%v, %v", all, err)
	}
	if got := Short().upTo(10); len(got.sizes) != 1 || len(got.cold) != 1 || len(got.rateSizes) != 0 || got.connects != Short().connects {
		t.Errorf("%+v", got)
	}
}
