package reflect

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// However a list comes, the tables are the same.
func TestAStreamedListIsAList(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api, err := apitest.NewStored(t.TempDir(), apitest.Cluster(200, 3))
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.Client()
	if err != nil {
		t.Fatal(err)
	}
	type rows struct {
		Nodes    []model.Node
		Services []model.Service
		Slices   []model.Slice
	}
	var got []rows
	for _, streams := range []bool{false, true} {
		api.StreamLists = streams
		tables := state.New(Sources...)
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); Run(ctx, client, tables, Options{Node: "n1"}) }()
		s := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })
		stop()
		<-done
		got = append(got, rows{slices.Collect(s.Nodes()), slices.Collect(s.Services()), slices.Collect(s.AllSlices())})
	}
	if len(got[0].Nodes) != 1 || len(got[0].Services) != 200 || len(got[0].Slices) != 200 {
		t.Fatalf("%d nodes, %d services, %d slices", len(got[0].Nodes), len(got[0].Services), len(got[0].Slices))
	}
	if diff := cmp.Diff(got[0], got[1], cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

// What came last in a stream holds, and what is not for us counts as gone.
func TestReplaceByWhatWasStreamed(t *testing.T) {
	tables := state.New(Sources...)
	s := sliceStore(tables, time.Now)
	if err := s.Replace([]any{webSlice(t, 1, true), webSlice(t, 2, true)}, "1"); err != nil {
		t.Fatal(err)
	}
	foreign := webSlice(t, 1, true)
	foreign.Labels[labelProxyName] = "another"
	keep := s.Transformer()
	var list []any
	for _, o := range []any{foreign, webSlice(t, 3, true)} {
		kept, err := keep(o)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, kept)
	}
	slices.Reverse(list) // the reflector keeps them in a map
	if err := s.Replace(list, "2"); err != nil {
		t.Fatal(err)
	}
	if got := tables.Snapshot().Slices(web); len(got) != 1 || got[0].Name.Name != "web-3" {
		t.Errorf("slices %v", got)
	}
	if _, err := keep(webService(t)); err == nil {
		t.Error("a Service among the slices is an error")
	}
}

// Values that many rows share are kept once, and nothing is kept that no row needs.
func TestRowsShareWhatIsEqual(t *testing.T) {
	two := []model.Slice{}
	for i := range 2 {
		list := apitest.Cluster(1, 3)["endpointslices"].(*discoveryv1.EndpointSliceList)
		row, ok := sliceStore(state.New(), time.Now).convert(&list.Items[0])
		if !ok || cap(row.Endpoints) != 3 {
			t.Fatalf("slice %d: %v, room for %d endpoints", i, ok, cap(row.Endpoints))
		}
		two = append(two, *row)
	}
	a, b := two[0], two[1]
	for what, texts := range map[string][2]string{
		"namespace": {a.Namespace, b.Namespace}, "port": {a.Ports[0].Name, b.Ports[0].Name},
		"node": {a.Endpoints[2].Node, b.Endpoints[2].Node}, "zone": {a.Endpoints[2].Zone, b.Endpoints[2].Zone},
	} {
		if texts[0] == "" || texts[0] != texts[1] || unsafe.StringData(texts[0]) != unsafe.StringData(texts[1]) {
			t.Errorf("%s: %q is kept twice", what, texts)
		}
	}
}
