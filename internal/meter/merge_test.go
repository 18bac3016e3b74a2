package meter_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// flow is one of 1 connection, with bytes there and back.
func flow(client, server model.Party, service string, there, back uint64) model.Flow {
	f := model.Flow{FlowKey: model.FlowKey{Client: client, Server: server, Port: 80, Protocol: model.TCP, Via: model.ViaDirect}}
	if service != "" {
		f.Service, f.Via = model.Name{Namespace: "shop", Name: service}, model.ViaClusterIP
	}
	f.FlowCount = model.FlowCount{Connections: 1, RequestBytes: there, ResponseBytes: back, RequestPackets: 1, ResponsePackets: 1}
	return f
}

func TestMerge(t *testing.T) {
	web, db := pod("a", "a1", "shop", "deployment/web"), pod("b", "b1", "shop", "deployment/db")
	internet := model.Party{Kind: model.Outside, Block: meter.Internet}
	lost, full := model.Party{Kind: model.Unknown}, model.Party{Kind: model.Unknown, Zone: "b", Node: "b1"}
	for _, c := range []struct {
		name     string
		client   model.Party
		server   model.Party
		observer meter.Observer
		metered  meter.Metered
		want     meter.Merged
	}{
		{"its client's node tells", web, db, meter.AtClient, meter.Metered{Nodes: map[string]bool{"a1": true, "b1": true}}, meter.Merged{}},
		{"its client's node is believed without being asked", web, db, meter.AtClient, meter.Metered{}, meter.Merged{}},
		{"its client's node tells, or will", web, db, meter.AtServer, meter.Metered{Nodes: map[string]bool{"a1": true, "b1": true}}, meter.Merged{Twice: 30}},
		{"every node does", web, db, meter.AtServer, meter.Metered{All: true}, meter.Merged{Twice: 30}},
		{"its client's node has no meter", web, db, meter.AtServer, meter.Metered{Nodes: map[string]bool{"b1": true}}, meter.Merged{}},
		{"from outside", internet, db, meter.AtServer, meter.Metered{All: true}, meter.Merged{}},
		{"from outside, by a node", model.Party{Kind: model.Outside, Block: meter.Internet, Zone: "a", Node: "a1"}, db, meter.AtClient, meter.Metered{All: true}, meter.Merged{}},
		{"who knows from where", lost, db, meter.AtServer, meter.Metered{Nodes: map[string]bool{"b1": true}}, meter.Merged{Doubtful: 30}},
		{"from a node that tells of it", lost, db, meter.AtServer, meter.Metered{All: true}, meter.Merged{Twice: 30}},
		{"out of a full map", lost, full, meter.AtServer, meter.Metered{All: true}, meter.Merged{Doubtful: 30}},
		{"passing", web, db, meter.Between, meter.Metered{}, meter.Merged{Passing: 30}},
		{"an observer of a later version", web, db, "moon", meter.Metered{}, meter.Merged{Passing: 30}},
	} {
		f := flow(c.client, c.server, "", 10, 20)
		if c.want.Twice+c.want.Passing == 0 {
			c.want.Flows = []model.Flow{f}
		}
		got := meter.Merge([]meter.Report{{Node: "b1", Flows: []meter.Observed{{Flow: f, Observer: c.observer}}}}, c.metered)
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// What nodes with a meter see is in the truth once, whichever they are and in whatever order they tell.
func TestMergeIsTheTruth(t *testing.T) {
	nodes := []string{"a1", "a2", "b1", "c1"}
	rapid.Check(t, func(t *rapid.T) {
		metered := meter.Metered{Nodes: map[string]bool{}, All: true}
		for _, n := range nodes {
			if metered.Nodes[n] = rapid.Bool().Draw(t, n); !metered.Nodes[n] {
				metered.All = false
			}
		}
		at := func(name string) model.Party {
			n := rapid.SampledFrom(nodes).Draw(t, name)
			return pod(n[:1], n, "shop", "deployment/"+name)
		}
		truth := map[model.FlowKey]model.FlowCount{}
		add := func(f model.Flow) {
			c := truth[f.FlowKey]
			c.Add(f.FlowCount)
			truth[f.FlowKey] = c
		}
		reports := map[string][]meter.Observed{}
		tell := func(n string, f model.Flow, o meter.Observer) {
			if metered.Nodes[n] {
				reports[n] = append(reports[n], meter.Observed{Flow: f, Observer: o})
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "flows") {
			client, server := at("client"), at("server")
			if rapid.IntRange(0, 4).Draw(t, "from outside") == 0 {
				client = model.Party{Kind: model.Outside, Block: meter.Internet}
			}
			f := flow(client, server, rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "service"), rapid.Uint64Range(1, 1000).Draw(t, "there"), 1)
			f.V6, f.Port, f.Protocol = rapid.Bool().Draw(t, "v6"), uint16(rapid.IntRange(80, 81).Draw(t, "port")), rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP}).Draw(t, "protocol")
			atServer := flow(client, server, "", f.RequestBytes, 1) // does not know what was dialled
			atServer.V6 = f.V6
			switch {
			case client.Node == server.Node:
				tell(client.Node, f, meter.AtClient)
			default:
				tell(client.Node, f, meter.AtClient)
				tell(server.Node, atServer, meter.AtServer)
				tell(rapid.SampledFrom(nodes).Draw(t, "router"), atServer, meter.Between)
			}
			switch {
			case metered.Nodes[client.Node]:
				add(f)
			case metered.Nodes[server.Node] && client.Node != server.Node:
				add(atServer)
			}
		}
		var list []meter.Report
		for _, n := range slices.Sorted(maps.Keys(reports)) {
			list = append(list, meter.Report{Node: n, Flows: reports[n]})
		}
		m := meter.Merge(rapid.Permutation(list).Draw(t, "order"), metered)
		var alone []model.Flow
		for _, r := range list {
			alone = append(alone, meter.Merge([]meter.Report{r}, metered).Flows...)
		}
		if !slices.Equal(meter.Sum(alone), m.Flows) {
			t.Fatalf("reports one by one make %v, together %v", meter.Sum(alone), m.Flows)
		}
		got := map[model.FlowKey]model.FlowCount{}
		for i, f := range m.Flows {
			got[f.FlowKey] = f.FlowCount
			if i > 0 && m.Flows[i-1].FlowKey.Compare(f.FlowKey) >= 0 {
				t.Fatalf("%v before %v", m.Flows[i-1], f)
			}
		}
		if !maps.Equal(got, truth) || m.Doubtful != 0 {
			t.Fatalf("got %v, truth %v", got, truth)
		}
		if again := meter.Sum(slices.Concat(m.Flows, m.Flows)); len(again) != len(m.Flows) || len(again) > 0 && again[0].RequestBytes != 2*m.Flows[0].RequestBytes {
			t.Fatalf("twice %v is %v", m.Flows, again)
		}
	})
}
