package stream

import (
	"errors"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

var errMalformed = errors.New("a number in it names nothing")

// encode writes flows with each name and party once.
func encode(at time.Time, flows []meter.Observed) *Batch {
	var names meter.Numbers[string]
	var parties meter.Numbers[model.Party]
	b := &Batch{At: at.UnixNano(), Flows: make([]*Flow, len(flows))}
	for i, f := range flows {
		b.Flows[i] = &Flow{
			Client: parties.Number(f.Client), Server: parties.Number(f.Server),
			Namespace: names.Number(f.Service.Namespace), Service: names.Number(f.Service.Name),
			Port: uint32(f.Port), Protocol: uint32(f.Protocol), Via: names.Number(string(f.Via)),
			Connections: f.Connections, RequestBytes: f.RequestBytes, ResponseBytes: f.ResponseBytes,
			RequestPackets: f.RequestPackets, ResponsePackets: f.ResponsePackets,
			RequestExtra: f.RequestExtra, ResponseExtra: f.ResponseExtra,
			V6: f.V6, Observer: names.Number(string(f.Observer)),
		}
	}
	for _, p := range parties.Values {
		b.Parties = append(b.Parties, &Party{Kind: names.Number(string(p.Kind)), Zone: names.Number(p.Zone), Node: names.Number(p.Node),
			Namespace: names.Number(p.Namespace), Workload: names.Number(p.Workload), Block: names.Number(p.Block)})
	}
	b.Names = names.Values
	return b
}

// decode is the reverse of encode.
func decode(b *Batch) ([]meter.Observed, error) {
	bad := false
	name := func(n uint32) string {
		if int(n) >= len(b.Names) {
			bad = true
			return ""
		}
		return b.Names[n]
	}
	parties := make([]model.Party, len(b.Parties))
	for i, p := range b.Parties {
		parties[i] = model.Party{Kind: model.PartyKind(name(p.Kind)), Zone: name(p.Zone), Node: name(p.Node),
			Namespace: name(p.Namespace), Workload: name(p.Workload), Block: name(p.Block)}
	}
	flows := make([]meter.Observed, len(b.Flows))
	for i, f := range b.Flows {
		if int(f.Client) >= len(parties) || int(f.Server) >= len(parties) || f.Port > 1<<16-1 || f.Protocol > 1<<8-1 {
			return nil, errMalformed
		}
		flows[i].Observer = meter.Observer(name(f.Observer))
		flows[i].FlowKey = model.FlowKey{Client: parties[f.Client], Server: parties[f.Server],
			Service: model.Name{Namespace: name(f.Namespace), Name: name(f.Service)},
			Port:    uint16(f.Port), Protocol: model.Protocol(f.Protocol), Via: model.Via(name(f.Via)), V6: f.V6}
		flows[i].FlowCount = model.FlowCount{Connections: f.Connections, RequestBytes: f.RequestBytes, ResponseBytes: f.ResponseBytes,
			RequestPackets: f.RequestPackets, ResponsePackets: f.ResponsePackets,
			RequestExtra: f.RequestExtra, ResponseExtra: f.ResponseExtra}
	}
	if bad {
		return nil, errMalformed
	}
	return flows, nil
}
