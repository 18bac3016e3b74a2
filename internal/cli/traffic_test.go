package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/zonewise/zonewise/internal/controller/view"
)

// shop stands in for a cluster whose controller leads: an API server that knows what the commands
// ask for, and forwards to the controller's local API.
type shop struct {
	api, controller *httptest.Server
	kubeconfig      string

	mu    sync.Mutex
	asked []url.Values // what the controller was asked, with the path as "path"
	lead  string
}

func newShop(t *testing.T, answer http.HandlerFunc) *shop {
	s := &shop{lead: "leader"}
	s.controller = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		q.Set("path", r.URL.Path)
		s.mu.Lock()
		s.asked = append(s.asked, q)
		s.mu.Unlock()
		answer(w, r)
	}))
	s.api = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.controller.Close)
	t.Cleanup(s.api.Close)
	s.kubeconfig = filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}], users: [{name: u, user: {token: t}}]}`, s.api.URL)
	if err := os.WriteFile(s.kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shop) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	lead := s.lead
	s.mu.Unlock()
	pod := func(name, component string) corev1.Pod {
		yes := true
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "zonewise", Name: name, Labels: map[string]string{"app.kubernetes.io/component": component},
				OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "watch", Controller: &yes}}},
			Spec: corev1.PodSpec{NodeName: "a1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
	}
	var v any
	switch path := r.URL.Path; path {
	case "/api/v1/pods":
		v = corev1.PodList{Items: []corev1.Pod{pod("leader", "controller"), pod("other", "controller")}}
		if lead == "" {
			v = corev1.PodList{}
		}
	case "/apis/coordination.k8s.io/v1/namespaces/zonewise/leases/zonewise-controller":
		v = coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &lead}}
	case "/api/v1/namespaces/shop/pods/watch-x7":
		v = pod("watch-x7", "")
	case "/api/v1/namespaces":
		v = corev1.NamespaceList{Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}}
	case "/api/v1/services":
		v = corev1.ServiceList{Items: []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}}}
	case "/api/v1/nodes":
		node := func(name, zone string) corev1.Node {
			return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
		}
		v = corev1.NodeList{Items: []corev1.Node{node("b1", "b"), node("a1", "a"), node("a2", "a")}}
	default:
		if !strings.HasPrefix(path, "/api/v1/namespaces/zonewise/pods/") || !strings.HasSuffix(path, "/portforward") {
			http.NotFound(w, r)
			return
		}
		s.forward(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// forward carries one connection to the controller.
func (s *shop) forward(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "websocket" {
		http.Error(w, "no websockets here", http.StatusForbidden)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	failures, data := <-streams, <-streams
	defer failures.Close()
	if port := data.Headers().Get(corev1.PortHeader); port != "9474" {
		fmt.Fprintf(failures, "nobody listens at %s", port)
		return
	}
	to, err := net.Dial("tcp", s.controller.Listener.Addr().String())
	if err != nil {
		fmt.Fprint(failures, err)
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, data)
		to.Close() // who asked has gone
	}()
	_, _ = io.Copy(data, to)
}

// run runs a command in the shop, and returns what came of it.
func (s *shop) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, append(append([]string{"zonewise"}, args...), "--kubeconfig", s.kubeconfig), &out, &errs)
	return code, out.String(), errs.String()
}

func answers(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
}

func says(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
}

var (
	oneLineOfTraffic = view.Traffic{Schema: view.TrafficSchema, By: "services", Lines: []view.Line{{Name: "shop/web", Bytes: 7}}, Notes: []string{"1 of 2 nodes\nhas not reported"}}
	oneLineOfCost    = view.Cost{Schema: view.CostSchema, By: "label:team", Prices: []string{"aws"}, Lines: []view.CostLine{{Name: "red", USD: 12}}}
)

func TestTrafficIsAskedForAsItIsWished(t *testing.T) {
	for _, c := range []struct {
		args  string
		query string // what the controller is asked
	}{
		{"top", "by=services&order=bytes&path=/v1/traffic&since=1m0s"},
		{"top zones --since 7d -n shop --zone a --node a1", "by=zones&namespace=shop&node=a1&order=bytes&path=/v1/traffic&since=168h0m0s&zone=a"},
		{"top workloads --sort in-zone --limit 5 --workload deployment/web -o json", "by=workloads&limit=5&order=in-zone&path=/v1/traffic&since=1m0s&workload=deployment/web"},
		{"top label:team -n shop -A --once", "by=label:team&order=bytes&path=/v1/traffic&since=1m0s"},
		{"top flows --service shop/web -o yaml", "by=flows&namespace=shop&order=bytes&path=/v1/traffic&service=web&since=1m0s"},
		{"flows --service web -n shop", "namespace=shop&path=/v1/flows&service=web&since=1m0s"},
		{"flows --pod watch-x7 --since 1h", "namespace=shop&node=a1&path=/v1/flows&since=1h0m0s&workload=daemonset/watch"},
		{"flows --pod shop/watch-x7 -n other -A", "namespace=shop&node=a1&path=/v1/flows&since=1m0s&workload=daemonset/watch"},
		{"flows --workload shop/deployment/web", "namespace=shop&path=/v1/flows&since=1m0s&workload=deployment/web"},
		{"cost", "by=services&path=/v1/cost&since=168h0m0s"},
		{"cost --by label:team -n shop --since 2w", "by=label:team&namespace=shop&path=/v1/cost&since=336h0m0s"},
		{"cost --by namespaces --limit 3", "by=namespaces&limit=3&path=/v1/cost&since=168h0m0s"},
	} {
		s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/cost":
				answers(oneLineOfCost)(w, r)
			case "/v1/flows":
				answers(view.Flow{Service: "web"})(w, r)
			default:
				answers(oneLineOfTraffic)(w, r)
			}
		})
		code, out, errs := s.run(t.Context(), strings.Fields(c.args)...)
		if code != exitOK || out == "" {
			t.Errorf("%s: exit code %d: %s%s", c.args, code, out, errs)
			continue
		}
		if got, _ := url.QueryUnescape(s.asked[0].Encode()); got != c.query {
			t.Errorf("%s asks\n%s, want\n%s", c.args, got, c.query)
		}
	}
}

func TestTrafficInAllForms(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/flows" {
			fmt.Fprint(w, `{"port":80,"protocol":"TCP","requestPackets":2,"requestBytes":99,"at":"2026-06-01T12:00:00Z","seconds":60,"later":1}`+"\n"+`{"port":81}`+"\n")
			return
		}
		answers(oneLineOfTraffic)(w, r)
	})
	const note = "zonewise: note: 1 of 2 nodes; has not reported\n"
	for args, want := range map[string][2]string{
		"top":              {"SERVICE   RATE", note},
		"top -o json":      {"{\n  \"schema\": \"zonewise.traffic/v1\"", note},
		"top -o yaml":      {"by: services", note},
		"flows -o json":    {`{"schema":"zonewise.flow/v1","at":"2026-06-01T12:00:00Z"`, ""},
		"flows -o vpcflow": {"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n2 - - - - - 80 6 2 99 1780315140 1780315200 ACCEPT OK\n", ""},
		"flows":            {"CLIENT", ""},
	} {
		code, out, errs := s.run(t.Context(), strings.Fields(args)...)
		if code != exitOK || !strings.HasPrefix(out, want[0]) || errs != want[1] {
			t.Errorf("%s: exit code %d\n%s\n%s", args, code, out, errs)
		}
	}
	if _, out, _ := s.run(t.Context(), "flows", "-o", "json"); strings.Count(out, "\n") != 2 || strings.Count(out, `"schema":"zonewise.flow/v1"`) != 2 {
		t.Errorf("%s", out)
	}
	_, _, errs := s.run(t.Context(), "flows", "--pod", "watch-x7")
	if want := "zonewise: note: pod shop/watch-x7 is one of shop/daemonset/watch on node a1; flows are kept by these: those of its siblings there are among them\n"; errs != want {
		t.Errorf("%s, want %s", errs, want)
	}
}

// What goes wrong is one line, which says what to do.
func TestTrafficThatCannotBeShown(t *testing.T) {
	nothing := answers(view.Traffic{Schema: view.TrafficSchema, By: "services", Lines: []view.Line{}})
	for _, c := range []struct {
		args, lead string
		answer     http.HandlerFunc
		stderr     string
	}{
		{"top", "", nothing, "no controller found; install the chart with its controller first"},
		{"cost", "nobody", nothing, "no controller leads; try again in some seconds, or look: kubectl -n zonewise get pods -l app.kubernetes.io/name=zonewise,app.kubernetes.io/component=controller"},
		{"top", "leader", says(503, "no meter: set controller.meter.enabled in the chart"), "controller zonewise/leader: no meter: set controller.meter.enabled in the chart"},
		{"flows -f", "leader", says(503, "no meter"), "controller zonewise/leader: no meter"},
		{"cost", "leader", says(404, "404 page not found"), "controller zonewise/leader: does not know /v1; it is older than this command: upgrade the chart"},
		{"cost", "leader", says(200, "<html>"), "controller zonewise/leader: answer: invalid character '<' looking for beginning of value"},
		{"top", "leader", nothing, "no traffic was reported in the last 1m; agents report every 10 s to 60 s: wait, or see zonewise check"},
		{"top -o json", "leader", nothing, "no traffic was reported in the last 1m; agents report every 10 s to 60 s: wait, or see zonewise check"},
		{"flows", "leader", says(200, ""), "no traffic was reported in the last 1m; agents report every 10 s to 60 s: wait, or see zonewise check"},
		{"flows", "leader", answers("no flow"), "controller zonewise/leader: answer: json: cannot unmarshal string into Go value of type view.Flow"},
		{"cost -n shop --since 2d", "leader", nothing, "no traffic of namespace shop in the last 2d; look further back with --since, or at less with fewer filters"},
		{"flows --pod gone", "leader", nothing, "pod shop/gone: the server could not find the requested resource (get pods gone)"},
	} {
		s := newShop(t, c.answer)
		s.lead = c.lead
		code, out, errs := s.run(t.Context(), strings.Fields(c.args)...)
		if want := "zonewise: " + c.stderr + "\n"; code != exitFailed || errs != want || (out != "") != strings.HasSuffix(c.args, "json") {
			t.Errorf("%s: exit code %d, %s\n%s want\n%s", c.args, code, out, errs, want)
		}
	}
}

// A controller that gave up the lead between two questions says so; then the next one is asked.
func TestTheLeaderIsFoundAgain(t *testing.T) {
	var s *shop
	s = newShop(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.lead
		s.lead = "other"
		s.mu.Unlock()
		if before == "leader" {
			says(503, "other leads")(w, r)
			return
		}
		answers(oneLineOfTraffic)(w, r)
	})
	if code, out, errs := s.run(t.Context(), "top"); code != exitOK || len(s.asked) != 2 {
		t.Errorf("exit code %d after %d questions: %s%s", code, len(s.asked), out, errs)
	}
}

// Who follows sees what comes in as it comes, goes on with the next controller, and stops when told to.
func TestFlowsAreFollowed(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	calls := 0
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		fmt.Fprintf(w, `{"port":%d,"missed":%d}`+"\n", 80+calls, calls-1)
		if calls == 1 {
			return // as one that is being replaced does
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	r, w := io.Pipe()
	var errs bytes.Buffer
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"zonewise", "flows", "-f", "-o", "json", "--since", "1h", "--kubeconfig", s.kubeconfig}, w, &errs)
		w.Close()
	}()
	d := json.NewDecoder(r)
	for _, want := range []uint16{81, 82} {
		var f view.Flow
		if err := d.Decode(&f); err != nil || f.Port != want {
			t.Fatalf("%+v, %v, want port %d", f, err, want)
		}
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if want := "zonewise: note: controller zonewise/leader: the answer ended; asking again, what comes meanwhile is not shown\n" +
		"zonewise: note: 1 flows left out: they come faster than they are taken; ask for fewer by a filter\n"; errs.String() != want {
		t.Errorf("%s", errs.String())
	}
	for i, want := range []string{"1h0m0s", "0s"} {
		if q := s.asked[i]; q.Get("since") != want || q.Get("follow") != "true" {
			t.Errorf("question %d: %v", i, q)
		}
	}
}

func TestTrafficCompletion(t *testing.T) {
	s := newShop(t, answers(nil))
	for args, want := range map[string]string{
		"top ":             "services\nzones\nflows\nnamespaces\nworkloads\n:4\n",
		"top --sort ":      "bytes\ncross\ncost\nin-zone\npackets\nconnects\nname\n:4\n",
		"top --zone ":      "a\nb\n:4\n",
		"top --node ":      "a1\na2\nb1\n:4\n",
		"top --service ":   "shop/web\n:4\n",
		"flows -n ":        "shop\n:4\n",
		"flows -o ":        "table\njson\nvpcflow\n:4\n",
		"cost --by ":       "service\nnamespace\nlabel:\n:6\n",
		"plan --output ":   "table\njson\nyaml\n:4\n",
		"cost --namespace": "--namespace\n:4\n",
	} {
		var out, errs bytes.Buffer
		command := strings.Split(args, " ")
		// flags before the word that is completed, as a user would have them
		all := append([]string{"zonewise", "__completeNoDesc", command[0], "--kubeconfig", s.kubeconfig}, command[1:]...)
		if code := run(t.Context(), all, &out, &errs); code != exitOK || out.String() != want {
			t.Errorf("%s: %d: %q, want %q (%s)", args, code, out.String(), want, errs.String())
		}
	}
}
