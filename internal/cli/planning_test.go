package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect/dump"
	"github.com/zonewise/zonewise/internal/route"
)

// server answers lists from a dump as an API server does: a list of one kind, whose items do not
// say theirs. A path of missing is unknown to it, one of denied is forbidden.
func server(t *testing.T, file string, missing, denied string) *rest.Config {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Items []map[string]any `json:"items"`
	}
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"/api/v1/nodes": "Node", "/api/v1/services": "Service", "/apis/discovery.k8s.io/v1/endpointslices": "EndpointSlice",
		"/api/v1/pods": "Pod", "/api/v1/namespaces": "Namespace", "/apis/zonewise.io/v1alpha1/zoneroutes": "ZoneRoute"}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, known := kinds[r.URL.Path]
		switch {
		case r.URL.Path == denied:
			w.WriteHeader(http.StatusForbidden)
			return
		case !known || r.URL.Path == missing:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		version := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')], "/apis/"), "/api/")
		items := []map[string]any{}
		for _, i := range all.Items {
			if i["kind"] == kind {
				bare := maps.Clone(i)
				delete(bare, "kind")
				delete(bare, "apiVersion")
				items = append(items, bare)
			}
		}
		b, err := json.Marshal(items)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"%sList","apiVersion":"%s","metadata":{"resourceVersion":"1"},"items":%s}`, kind, version, b)
	}))
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}
}

// A cluster and what kubectl prints of it come to the same.
func TestClusterIsReadAsItsDump(t *testing.T) {
	f, err := os.Open("testdata/dumps/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := dump.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	want.Notes = nil // of the Deployment, which no API server gives unasked
	got, err := readCluster(t.Context(), server(t, "testdata/dumps/shop.yaml", "/apis/zonewise.io/v1alpha1/zoneroutes", ""))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestClusterThatDenies(t *testing.T) {
	_, err := readCluster(t.Context(), server(t, "testdata/dumps/shop.yaml", "", "/api/v1/pods"))
	if err == nil || !strings.Contains(err.Error(), "pods: ") {
		t.Errorf("error is %v, want one that names pods", err)
	}
	_, err = readCluster(t.Context(), server(t, "testdata/dumps/shop.yaml", "/api/v1/services", ""))
	if err == nil || !strings.Contains(err.Error(), "services: ") {
		t.Errorf("error is %v, want one that names services", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readCluster(ctx, server(t, "testdata/dumps/shop.yaml", "", "")); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want %v", err, context.Canceled)
	}
}

// What the controller measured is in the status, and counts.
func TestMeasuredDemandOfTheStatusCounts(t *testing.T) {
	in, name := synthetic(1, 9), model.Name{Namespace: "default", Name: "s0"}
	demand := model.Demand{Source: model.Measured, Shares: model.Shares{{Zone: "a", Share: .7}, {Zone: "b", Share: .2}, {Zone: "c", Share: .1}}, BytesPerSecond: 1e6}
	in.Routes = []model.ZoneRoute{{Name: name, Status: model.RouteStatus{Plans: []model.RoutePlan{{Demand: demand, Zones: []model.ZonePlan{{Name: "a"}}}}}}}
	book, _ := route.Book("aws")
	as := func(q question) report.PlanService {
		q.prices = book
		p := newPlanner(in, q)
		return report.MakePlan([]outlook.Service{p.plan(in.Services[0])}, func(model.Name) bool { return false }).Services[0]
	}
	if got := as(question{}); got.Demand.Source != "Measured" || got.Zones[0].Demand != .7 || got.CostPerMonth == nil {
		t.Errorf("%+v", got)
	}
	if got := as(question{WhatIf: route.WhatIf{Lose: []string{"a"}}}); math.Abs(got.Zones[0].Demand-2./3) > 1e-9 || math.Abs(got.Demand.BytesPerSecond-3e5) > 1e-6 {
		t.Errorf("without zone a: %+v", got)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]float64{"": 0, "0": 0, "500": 500, "10MB": 1e7, "10MB/s": 1e7, "1.5k": 1500, "2Gi": 2 << 30, "3GiB/s": 3 << 30, "1TB": 1e12, "1e3": 1000} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"MB", "-1", "10MBit", "NaN", "Inf", "10 MB", "1e400", "10/s/s", "10BB", "0x1p4i"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

// synthetic is a cluster of three zones with four nodes each.
func synthetic(services, endpoints int) input {
	var in input
	zones := []string{"a", "b", "c"}
	for i := range 12 {
		in.Nodes = append(in.Nodes, model.Node{Name: fmt.Sprintf("n%02d", i), Zone: zones[i%3], Ready: true, MilliCPU: 4000})
	}
	for s := range services {
		name := model.Name{Namespace: "default", Name: fmt.Sprintf("s%d", s)}
		in.Services = append(in.Services, model.Service{Name: name, Type: model.ClusterIP, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100, byte(s >> 8), byte(s)})}})
		slice := model.Slice{Name: model.Name{Namespace: "default", Name: name.Name + "-x"}, Service: name.Name}
		for e := range endpoints {
			n := in.Nodes[(e*7+s*e)%12]
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(s >> 8), byte(s), byte(e)}), Node: n.Name, Zone: n.Zone, Ready: true, Serving: true})
		}
		in.Slices = append(in.Slices, slice)
	}
	return in
}

// BenchmarkPlanAll is a whole plan as the command makes it, reading left out.
func BenchmarkPlanAll(b *testing.B) {
	in := synthetic(10000, 50)
	book, _ := route.Book("aws")
	for b.Loop() {
		p := newPlanner(in, question{prices: book})
		planned, err := p.planAll(b.Context(), in.Services)
		if err != nil {
			b.Fatal(err)
		}
		var out bytes.Buffer
		if err := report.PlanTable(&out, report.MakePlan(planned, func(model.Name) bool { return false })); err != nil {
			b.Fatal(err)
		}
	}
}
