package routes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
)

// Reasons for which Obeyed is False, besides those of route.Obeyed.
const (
	LongLived = "LongLived" // connections are older than the plan
	Bypassed  = "Bypassed"  // clients choose among the Service's pods themselves
	Diverted  = "Diverted"  // new connections go where the plan sends none
)

const (
	// blamable is the share of a Service's bytes that must go otherwise than planned to be worth a word,
	// and forgiven the one below which it is none any more.
	blamable = 0.05
	forgiven = 0.02
	// named is how many culprits are named.
	named = 3
)

// blame is the part of a Service's bytes that go otherwise than planned, and whose they are.
type blame struct {
	share    float64 // of all bytes: what no chance explains
	culprits []culprit
}

// culprit is a client, and what it does.
type culprit struct {
	reason string
	who    string  // "long-lived connections of shop/deployment/web in zone a"
	share  float64 // of all bytes
	doubt  float64 // the same of bytes that go where the plan sends some: it may be chance, if counts do not say otherwise
}

// whose tells whose bytes go otherwise than planned. Each client zone's bytes are held against its
// row: what a pair of zones has beyond its part is put down to the pair's flows alike.
func whose(pieces []model.Flow, v verdict, f *outlook.Family) blame {
	flows := joined(pieces)
	own := func(x model.Flow) bool {
		return x.Service == v.Name && x.V6 == f.V6 && x.Client.Zone != "" && x.Server.Zone != "" && meter.Chosen(x.FlowKey)
	}
	from, pairs, served, all := map[string]float64{}, map[model.ZonePair]float64{}, map[string]bool{}, 0.0
	for _, x := range flows {
		if !own(x) {
			continue
		}
		b := float64(x.Bytes())
		from[x.Client.Zone] += b
		pairs[model.ZonePair{From: x.Client.Zone, To: x.Server.Zone}] += b
		all += b
		if x.Server.Workload != "" {
			served[meter.WorkloadText(x.Server)] = true
		}
	}
	plan := f.Matrix()
	sums := map[string]*culprit{}
	add := func(reason, who string, sure, doubt float64) {
		c := sums[who]
		if c == nil {
			c = &culprit{reason: reason, who: who}
			sums[who] = c
		}
		c.share, c.doubt = c.share+sure, c.doubt+doubt
	}
	for _, x := range flows {
		b := float64(x.Bytes())
		switch {
		case own(x):
			row := plan.Of(x.Client.Zone)
			if len(row) == 0 || x.Client.Zone == x.Server.Zone {
				continue
			}
			want := row.Of(x.Server.Zone)
			if v.carried {
				want = max(want, f.HintSet.Forecast.Matrix.Of(x.Client.Zone).Of(x.Server.Zone))
			}
			pair := model.ZonePair{From: x.Client.Zone, To: x.Server.Zone}
			beyond := max(0, 1-want*from[pair.From]/pairs[pair]) * b
			who := meter.WorkloadText(x.Client)
			switch {
			case x.Connections == 0:
				add(LongLived, fmt.Sprintf("long-lived connections of %s in zone %s", who, x.Client.Zone), beyond, 0)
			case want == 0:
				add(Diverted, newOnes(x), beyond, 0)
			default:
				add(Diverted, newOnes(x), 0, beyond)
			}
		case bypasses(x, f.V6, served):
			all += b
			add(Bypassed, around(x), b, 0)
		}
	}
	out := blame{}
	for _, c := range sums {
		if c.share+c.doubt == 0 {
			continue
		}
		c.share, c.doubt = c.share/all, c.doubt/all
		out.share += c.share
		out.culprits = append(out.culprits, *c)
	}
	slices.SortFunc(out.culprits, func(a, b culprit) int {
		return cmp.Or(cmp.Compare(b.share+b.doubt, a.share+a.doubt), strings.Compare(a.who, b.who))
	})
	return out
}

// joined has each flow once: in one piece of time of many a flow may have opened no connection.
func joined(pieces []model.Flow) []model.Flow {
	at := make(map[model.FlowKey]int, len(pieces))
	out := make([]model.Flow, 0, len(pieces))
	for _, p := range pieces {
		i, ok := at[p.FlowKey]
		if !ok {
			i = len(out)
			at[p.FlowKey] = i
			out = append(out, model.Flow{FlowKey: p.FlowKey})
		}
		out[i].Add(p.FlowCount)
	}
	return out
}

func newOnes(x model.Flow) string {
	return fmt.Sprintf("connections of %s on node %s, where another proxy or a mesh may choose", meter.WorkloadText(x.Client), x.Client.Node)
}

// bypasses tells whether a flow goes from one zone to another, to a workload that serves the Service,
// without the Service. What a workload's pods do among themselves is their own business.
func bypasses(x model.Flow, v6 bool, served map[string]bool) bool {
	if x.V6 != v6 || !meter.Crosses(x.FlowKey) || x.Via != model.ViaHeadless && x.Via != model.ViaDirect {
		return false
	}
	server := meter.WorkloadText(x.Server)
	return served[server] && server != meter.WorkloadText(x.Client)
}

func around(x model.Flow) string {
	who := fmt.Sprintf("%s in zone %s", meter.WorkloadText(x.Client), x.Client.Zone)
	if x.Via == model.ViaHeadless {
		return fmt.Sprintf("%s by the headless Service %s", who, x.Service)
	}
	return who + " by the pods' own addresses, as a mesh does"
}

// graveness is the reason of the most bytes about which there is no doubt, and whether they are enough to
// say that a plan is not obeyed. What has been said holds on until little is left.
func (b blame) graveness(was model.Condition) (reason string, grave bool) {
	limit := blamable
	if was.Status == no && beside(was) {
		limit = forgiven
	}
	if b.share < limit {
		return "", false
	}
	worst := slices.MaxFunc(b.culprits, func(a, b culprit) int { return cmp.Compare(a.share, b.share) })
	return worst.reason, true
}

// beside tells of a condition that is about bytes beside the plan, not about counts.
func beside(c model.Condition) bool {
	return c.Reason == LongLived || c.Reason == Bypassed || c.Reason == Diverted
}

// text names the culprits; those in doubt only if asked for.
func (b blame) text(doubtful bool) string {
	var parts []string
	rest := 0
	for _, c := range b.culprits {
		share := c.share
		if doubtful {
			share += c.doubt
		}
		switch {
		case share < forgiven/2:
		case len(parts) == named:
			rest++
		default:
			parts = append(parts, fmt.Sprintf("%s of bytes: %s", percent(share), c.who))
		}
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", rest))
	}
	return strings.Join(parts, "; ")
}

// differs tells whether there is other to say: about others, or by more than the waver of traffic.
func (b blame) differs(o blame) bool {
	who := func(x blame) []string {
		var out []string
		for _, c := range x.culprits {
			if c.share+c.doubt >= forgiven {
				out = append(out, c.who)
			}
		}
		slices.Sort(out)
		return out
	}
	return other(b.share, o.share, 0.5) && max(b.share, o.share) >= forgiven || !slices.Equal(who(b), who(o))
}
