// Package storetest makes up the flows of a large cluster, for tests and benchmarks.
package storetest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/zonewise/zonewise/internal/model"
)

// World is a cluster of three zones in which every node's pods call Services, a few of which get most
// calls. The same seed makes the same world.
type World struct {
	nodes    []model.Party
	services []service
	flows    [][]model.FlowKey // by node
	random   *rand.Rand
}

type service struct {
	name    model.Name
	port    uint16
	servers []model.Party
	calls   []int // which Services its pods call
}

// New makes a world of some nodes with so many flows a minute on each.
func New(nodes, flows int, seed uint64) *World {
	w := &World{random: rand.New(rand.NewPCG(seed, 1))}
	for i := range nodes {
		w.nodes = append(w.nodes, model.Party{Kind: model.NodeParty, Zone: "ap-northeast-2" + string("abc"[i%3]), Node: fmt.Sprintf("ip-10-%d-%d-%d.ap-northeast-2.compute.internal", i>>12, i>>6&63, i&63)})
	}
	for i := range max(5, nodes/5) {
		s := service{name: model.Name{Namespace: fmt.Sprintf("team-%d", i%97), Name: fmt.Sprintf("service-%d", i)}, port: uint16(8000 + i%10)}
		for range 3 + w.random.IntN(30) {
			s.servers = append(s.servers, w.pod(w.random.IntN(nodes), s.name))
		}
		w.services = append(w.services, s)
	}
	for i := range w.services {
		for range 12 {
			w.services[i].calls = append(w.services[i].calls, int(math.Pow(w.random.Float64(), 3)*float64(len(w.services))))
		}
	}
	for i := range nodes {
		w.flows = append(w.flows, w.keys(i, flows))
	}
	return w
}

func (w *World) pod(node int, of model.Name) model.Party {
	p := w.nodes[node]
	p.Kind, p.Namespace, p.Workload = model.PodParty, of.Namespace, "deployment/"+of.Name
	return p
}

// keys are what a node's pods keep calling: 20 workloads, each the Services that it calls anywhere.
func (w *World) keys(node, flows int) (keys []model.FlowKey) {
	seen := map[model.FlowKey]bool{}
	for i := 0; len(keys) < flows && i < 20*flows; i++ {
		client := w.services[(node*7+i%20*31)%len(w.services)]
		s := w.services[client.calls[w.random.IntN(len(client.calls))]]
		k := model.FlowKey{Client: w.pod(node, client.name), Server: s.servers[w.random.IntN(len(s.servers))],
			Service: s.name, Port: s.port, Protocol: model.TCP, Via: model.ViaClusterIP}
		if !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// Node is a node's name.
func (w *World) Node(node int) string { return w.nodes[node].Node }

// Minute makes up how much went in one minute by a node's flows, which are the same each minute.
func (w *World) Minute(node int) []model.Flow {
	flows := make([]model.Flow, 0, len(w.flows[node]))
	for _, k := range w.flows[node] {
		requests := uint64(math.Exp(w.random.NormFloat64()*1.5 + 4))
		answer := uint64(math.Exp(w.random.NormFloat64()*1.5 + 7))
		c := model.FlowCount{Connections: requests/20 + 1, RequestPackets: 2*requests + 4, ResponsePackets: requests*(1+answer/1448) + 3}
		c.RequestBytes = c.RequestPackets*52 + requests*(200+w.random.Uint64N(300))
		c.ResponseBytes = c.ResponsePackets*52 + requests*answer
		flows = append(flows, model.Flow{FlowKey: k, FlowCount: c})
	}
	return flows
}
