package meter

import (
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Fold returns what went between two readings as flows between parties, ordered, and what could not
// be told. Every byte that the counters counted is in exactly one flow; a party that nobody knows is
// Unknown. For disorder and for a zero before, see Deltas.
func Fold(before, now Reading, owners *Owners) ([]Observed, Lost) {
	deltas, lost := Deltas(before, now)
	type name struct {
		model.FlowKey
		Observer
	}
	at := make(map[name]int, len(deltas))
	var out []Observed
	for i := range deltas {
		key, observer := owners.flow(&deltas[i], &lost)
		n := name{key, observer}
		j, ok := at[n]
		if !ok {
			j = len(out)
			at[n] = j
			out = append(out, Observed{model.Flow{FlowKey: key}, observer})
		}
		out[j].Add(deltas[i].FlowCount)
	}
	slices.SortFunc(out, Observed.Compare)
	return out, lost
}

// flow says in the cluster's nouns what the kernel said in numbers.
func (o *Owners) flow(d *Delta, lost *Lost) (model.FlowKey, Observer) {
	k := model.FlowKey{Port: d.Server.Port(), Protocol: d.Protocol, V6: is6(d.Client) || is6(d.Server.Addr())}
	var unsure bool
	k.Client, unsure = o.end(d.Client, 0, d, d.Side == ClientEnd || d.Side == BothEnds)
	server, doubt := o.end(d.Server.Addr(), d.Server.Port(), d, d.Side == ServerEnd)
	k.Server, unsure = server, unsure || doubt
	if !d.Client.IsValid() || !d.Server.IsValid() {
		lost.Unattributed += d.Bytes()
	}

	observer := Between
	switch {
	case d.Side == ClientEnd || d.Side == BothEnds:
		observer = AtClient
	case d.Side == ServerEnd:
		observer = AtServer
	case d.Masqueraded:
		// From here on it is this node's own connection. The part before is the client's node's to tell.
		observer = AtClient
		k.Client = o.entry(k.Client)
	}
	if t, via, ambiguous := o.dialled(d); via != "" {
		unsure = unsure || ambiguous
		k.Via = via
		if t.Service != (model.Name{}) {
			k.Service, k.Port = t.Service, t.Port
		}
	}
	if unsure {
		lost.Ambiguous += d.Bytes()
	}
	return k, observer
}

// end tells the party at one end. An address that the kernel does not know is at least of this node
// if that end is here.
func (o *Owners) end(a netip.Addr, port uint16, d *Delta, here bool) (who model.Party, ambiguous bool) {
	if !a.IsValid() {
		who = model.Party{Kind: model.Unknown}
		if here {
			who.Zone, who.Node = o.Self.Zone, o.Self.Node
		}
		return who, false
	}
	if here {
		if who, ok := o.local(d.Cgroup, d.Window); ok {
			return who, false
		}
	}
	return o.party(a, port, d.Protocol, d.Window)
}

// entry is the client of what this node passes on under its own address.
func (o *Owners) entry(client model.Party) model.Party {
	if client.Kind == model.Outside {
		client.Zone, client.Node = o.Self.Zone, o.Self.Node
		return client
	}
	return o.Self
}

// dialled tells what the client dialled.
func (o *Owners) dialled(d *Delta) (t Target, via model.Via, ambiguous bool) {
	if !d.Server.IsValid() {
		return t, model.ViaUnknown, false
	}
	place := d.Dialled
	if !place.IsValid() {
		place = d.Server // it may be an address of a Service that another machine translates
	}
	t, found, ambiguous := o.target(place, d.Protocol, d.Window)
	switch {
	case ambiguous:
		return Target{}, model.ViaUnknown, true
	case found:
		return t, t.Via, false
	case d.Dialled.IsValid():
		return t, model.ViaUnknown, false // translated, and by no Service that we know
	}
	if t, ok := o.endpoint(d.Server, d.Protocol, d.Window); ok {
		return t, model.ViaHeadless, false
	}
	return t, model.ViaDirect, false
}

func is6(a netip.Addr) bool { return a.Unmap().Is6() }
