package metering

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

var (
	web = model.Name{Namespace: "shop", Name: "web"}
	db  = model.Name{Namespace: "stock", Name: "db"}
)

// world is a cluster of six nodes in three zones, and a leader in it. Its clock is that of testing/synctest.
type world struct {
	*testing.T
	meter    *Meter
	term     *term
	log      *bytes.Buffer
	known    map[model.Name]routes.Known
	prices   *book
	sequence map[string]uint64 // by node
}

// book is the prices of now.
type book struct {
	series  meter.Series
	trouble string
}

func (b *book) Series() meter.Series { return b.series }
func (b *book) Trouble() string      { return b.trouble }

var nodes = []string{"a1", "a2", "b1", "b2", "c1", "c2"}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{T: t, log: &bytes.Buffer{}, known: map[model.Name]routes.Known{}, sequence: map[string]uint64{}}
	aws, _ := route.Book("aws")
	w.prices = &book{series: meter.Series{{Prices: aws}}}
	tables := state.New(state.Nodes, state.Pods)
	tables.Update(time.Now(), func(tx *state.Tx) {
		for _, n := range nodes {
			tx.PutNode(model.Node{Name: n, Zone: n[:1], Ready: true})
			tx.PutPod(model.Pod{Name: model.Name{Namespace: "kube-system", Name: agentPrefix + n}, Node: n})
		}
		tx.Initialised(state.Nodes)
		tx.Initialised(state.Pods)
	})
	api := apitest.New(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "front"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stock", Labels: map[string]string{"team": "back"}}})
	m, err := New(Config{
		Tables: tables, Client: api, Namespace: "kube-system", PodIP: "127.0.0.1", Dir: dir,
		Prices: w.prices,
		Known: func(svc model.Name, _ bool) (routes.Known, bool) {
			k, ok := w.known[svc]
			return k, ok
		},
		Leader: func() string { return "zonewise-controller-2" }, Log: logger(w.log),
	})
	must(t, err)
	w.meter = m
	w.begin()
	return w
}

// begin is what lead does, without anybody else.
func (w *world) begin() {
	w.Helper()
	t := newTerm(w.meter, time.Now())
	s, err := store.Open(w.meter.Dir, w.meter.keeps(t.notice))
	must(w, err)
	t.store = s
	must(w, t.replay(time.Now()))
	t.server = stream.NewServer(t, stream.ServerOptions{})
	t.look(time.Now())
	w.meter.set(t)
	w.term = t
}

func (w *world) end() {
	w.Helper()
	w.meter.set(nil)
	close(w.term.over)
	must(w, w.term.store.Close())
}

// wait lets time pass, with what happens each second and each minute.
func (w *world) wait(d time.Duration) {
	w.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(min(time.Second, time.Until(end)))
		now := time.Now()
		w.term.look(now)
		if now.Second() == 0 {
			must(w, w.term.store.Roll(now))
		}
	}
}

func (w *world) report(node string, flows ...model.Flow) {
	w.Helper()
	w.sequence[node]++
	must(w, w.term.Append([]store.Report{{Node: node, Epoch: 1, Sequence: w.sequence[node], At: time.Now(), Flows: flows}}))
}

// calls are n connections of pods on a node to Service web, each with 1 kB there and 9 kB back.
func calls(node, to string, n uint64) model.Flow { return callsOf(web, node, to, n) }

func callsOf(svc model.Name, node, to string, n uint64) model.Flow {
	return model.Flow{
		FlowKey: model.FlowKey{Client: pod(node, "shop", "front"), Server: pod(to, svc.Namespace, svc.Name), Service: svc, Port: 80,
			Protocol: model.TCP, Via: model.ViaClusterIP},
		FlowCount: model.FlowCount{Connections: n, RequestBytes: 1000 * n, ResponseBytes: 9000 * n, RequestPackets: 5 * n, ResponsePackets: 10 * n},
	}
}

func pod(node, namespace, name string) model.Party {
	return model.Party{Kind: model.PodParty, Zone: node[:1], Node: node, Namespace: namespace, Workload: "deployment/" + name}
}

// get asks the API.
func (w *world) get(path string) *httptest.ResponseRecorder {
	r := httptest.NewRecorder()
	w.meter.Handler().ServeHTTP(r, httptest.NewRequest("GET", path, nil))
	return r
}

// page is an answer as people read it.
func (w *world) page(path string) string {
	w.Helper()
	r := w.get(path)
	if r.Code != http.StatusOK {
		return fmt.Sprintf("GET %s\n%d %s\n", path, r.Code, r.Body)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s\n", path)
	decoder := json.NewDecoder(r.Body)
	for decoder.More() {
		var v any
		must(w, decoder.Decode(&v))
		text, err := json.MarshalIndent(rounded(v), "", "  ")
		must(w, err)
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String()
}

// rounded leaves out of figures what depends on the processor.
func rounded(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = rounded(x[k])
		}
	case []any:
		for i := range x {
			x[i] = rounded(x[i])
		}
	case float64:
		short, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 9, 64), 64)
		return short
	}
	return v
}

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func (w *world) shares(svc model.Name) string {
	d := w.meter.Measured(svc, false, time.Now())
	if d == nil {
		return "none"
	}
	var out []string
	for _, s := range d.Shares {
		out = append(out, fmt.Sprintf("%s %.3f", s.Zone, s.Share))
	}
	return strings.Join(out, ", ")
}

func counted(of []route.Counted) string {
	var out []string
	for _, c := range of {
		out = append(out, fmt.Sprintf("%s-%s %d", c.From, c.To, c.Connections))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
