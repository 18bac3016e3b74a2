package past

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	nouns "github.com/zonewise/zonewise/internal/model"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func pod(zone, namespace string) nouns.Party {
	return nouns.Party{Kind: nouns.PodParty, Zone: zone, Node: zone + "1", Namespace: namespace, Workload: "deployment/x"}
}

var web = nouns.Name{Namespace: "shop", Name: "web"}

// What is told of a flow is read back as far as answers need it: by whom it is paid, why it crosses, what it would have done.
func TestWhatIsToldIsReadBack(t *testing.T) {
	node, outside := nouns.Party{Kind: nouns.NodeParty, Zone: "b", Node: "b1"}, nouns.Party{Kind: nouns.Outside, Block: "internet"}
	for name, k := range map[string]nouns.FlowKey{
		"a Service":        {Client: pod("a", "front"), Server: pod("b", "shop"), Service: web, Via: nouns.ViaClusterIP, Port: 80},
		"IPv6":             {Client: pod("a", "front"), Server: pod("b", "shop"), Service: web, Via: nouns.ViaClusterIP, V6: true},
		"headless":         {Client: pod("a", "front"), Server: pod("b", "shop"), Service: web, Via: nouns.ViaHeadless},
		"from outside":     {Client: outside, Server: pod("b", "shop"), Service: web, Via: nouns.ViaNodePort},
		"a node is called": {Client: outside, Server: node, Service: web, Via: nouns.ViaLoadBalancer},
		"directly":         {Client: pod("a", "front"), Server: pod("b", "stock"), Via: nouns.ViaDirect},
		"from a node":      {Client: node, Server: pod("a", "stock"), Via: nouns.ViaDirect},
		"nobody knows":     {Client: nouns.Party{Kind: nouns.Unknown}, Server: pod("a", "stock"), Via: nouns.ViaUnknown},
	} {
		for _, way := range []string{Request, Response} {
			labels := model.Metric{}
			for i, v := range KeyOf(&k).Values(way) {
				labels[model.LabelName(BytesLabels[i])] = model.LabelValue(v)
			}
			key, ok := keyOf(labels, way)
			if !ok {
				t.Errorf("%s: %v is not taken", name, labels)
				continue
			}
			back := key.flow()
			said := func(k nouns.FlowKey) string {
				f := nouns.Flow{FlowKey: k}
				return fmt.Sprint(meter.ByService(k), meter.Payer(k), meter.Zone(k.Client), meter.Zone(k.Server), meter.Crosses(k), meter.Chosen(k), k.V6,
					meter.Why(f, meter.Routing{}), k.Client.Namespace, k.Server.Namespace == back.Server.Namespace || k.Server.Kind == nouns.NodeParty)
			}
			if a, b := said(k), said(back); a != b {
				t.Errorf("%s, %s: told %s, read %s", name, way, a, b)
			}
		}
	}
}

func matrix(t *testing.T, text string) (m model.Matrix) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStepsOfAnAnswer(t *testing.T) {
	at := noon.Unix()
	labels := `"namespace":"shop","service":"web","client_namespace":"front","via":"ClusterIP","family":"IPv4"`
	bytes := matrix(t, fmt.Sprintf(`[
		{"metric":{%s,"source_zone":"a","destination_zone":"b","direction":"request"},"values":[[%d,"1000.4"],[%d,"0"]]},
		{"metric":{%s,"source_zone":"b","destination_zone":"a","direction":"response"},"values":[[%d,"9000"],[%d,"7"]]},
		{"metric":{%s,"source_zone":"b","destination_zone":"a","direction":"request"},"values":[[%d,"5"],[%d,"NaN"]]},
		{"metric":{%s,"source_zone":"b","destination_zone":"a"},"values":[[%d,"5"]]},
		{"metric":{"service":"web"},"values":[[%d,"5"]]},
		{"metric":{%s,"source_zone":"a","destination_zone":"b","direction":"request"},"values":[[%d,"-1"],[%d,"+Inf"],[%d,"1e30"],[%d,"5"],[%d.5,"5"]]}
		]`, labels, at+300, at+600, labels, at+300, at+600, labels, at+300, at+600, labels, at+300, at+300, labels, at+300, at+300, at+300, at+900, at+300))
	connections := matrix(t, fmt.Sprintf(`[{"metric":{%s,"source_zone":"a","destination_zone":"b"},"values":[[%d,"3"]]}]`, labels, at+300))
	got, odd := steps(bytes, connections, noon, 5*time.Minute, 2)
	key := func(client, server string) nouns.FlowKey {
		return nouns.FlowKey{Client: nouns.Party{Kind: nouns.PodParty, Zone: client, Namespace: "front"},
			Server: nouns.Party{Kind: nouns.PodParty, Zone: server, Namespace: "shop"}, Service: web, Via: nouns.ViaClusterIP}
	}
	want := [][]nouns.Flow{
		{{FlowKey: key("a", "b"), FlowCount: nouns.FlowCount{Connections: 3, RequestBytes: 1000, ResponseBytes: 9000}},
			{FlowKey: key("b", "a"), FlowCount: nouns.FlowCount{RequestBytes: 5}}},
		{{FlowKey: key("a", "b"), FlowCount: nouns.FlowCount{ResponseBytes: 7}}},
	}
	if d := cmp.Diff(want, got); d != "" || odd != 8 {
		t.Errorf("%d odd; %s", odd, d)
	}
}

// What a caller says is a value in a question, whatever it is.
func TestWhatIsAskedFor(t *testing.T) {
	own := map[string]string{"cluster": "prod"}
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, `M{cluster="prod"}`},
		{Filter{Service: "web"}, `M{cluster="prod", service="web"}`},
		{Filter{Service: "web", Namespace: "shop"}, `M{cluster="prod", namespace="shop", service="web"}`},
		{Filter{Namespace: "shop"}, `M{cluster="prod", namespace="shop"} or M{client_namespace="shop", cluster="prod"}`},
		{Filter{Zone: "a"}, `M{cluster="prod", source_zone="a"} or M{cluster="prod", destination_zone="a"}`},
		{Filter{Service: "x\"} or up\n{a=\"\\"}, `M{cluster="prod", service="x\"} or up\n{a=\"\\"}`},
	} {
		if got := strings.Join(selectors("M", own, c.filter), " or "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.filter, got, c.want)
		}
	}
	if got := growth("M", []string{"a", "b"}, nil, Filter{Zone: "z"}, time.Hour); strings.Count(got, "sum by (a, b) (") != 2 || strings.Count(got, "[1h]") != 6 ||
		!strings.Contains(got, `or increase(M{source_zone="z"}[1h])) or sum`) || strings.Contains(got, "%!") {
		t.Error(got)
	}
}

// Every key comes back from its labels.
func TestKeysComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"a", "b", meter.ZoneOutside, meter.ZoneUnknown})
		k := Key{Service: nouns.Name{Namespace: rapid.String().Draw(t, "namespace"), Name: rapid.String().Draw(t, "name")}, ClientNamespace: rapid.String().Draw(t, "client"),
			Client: zone.Draw(t, "from"), Server: zone.Draw(t, "to"), Via: rapid.SampledFrom([]string{"ClusterIP", "Headless", "Direct", viaNode}).Draw(t, "via"), V6: rapid.Bool().Draw(t, "v6")}
		way := rapid.SampledFrom([]string{Request, Response, ""}).Draw(t, "way")
		labels := model.Metric{}
		for i, v := range k.Values(way) {
			labels[model.LabelName(BytesLabels[i])] = model.LabelValue(v)
		}
		if got, ok := keyOf(labels, way); !ok || got != k {
			t.Errorf("%+v, %v, want %+v", got, ok, k)
		}
	})
}
