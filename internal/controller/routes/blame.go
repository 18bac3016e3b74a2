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

// Reasons for which Obeyed is False.
const (
	LongLived = "LongLived" // connections are older than the plan
	Bypassed  = "Bypassed"  // clients choose among the Service's pods themselves
	OffPlan   = "OffPlan"   // new connections go elsewhere
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
	who    string // "long-lived connections of shop/deployment/web in zone a"
	share  float64
	doubt  bool // the plan sends some there, too: it may be chance, unless the count of connections says otherwise
}

// whose tells whose bytes go otherwise than planned. Each client zone's bytes are held against its
// row: what a pair of zones has beyond its part is put down to the pair's flows alike.
func whose(flows []model.Flow, v verdict, f *outlook.Family) blame {
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
	sums := map[culprit]float64{}
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
			if beyond := 1 - want*from[pair.From]/pairs[pair]; beyond > 0 {
				sums[strays(x, want > 0)] += beyond * b
			}
		case bypasses(x, f.V6, served):
			all += b
			sums[culprit{reason: Bypassed, who: around(x)}] += b
		}
	}
	out := blame{}
	for c, b := range sums {
		if all == 0 || b == 0 {
			continue
		}
		c.share = b / all
		if !c.doubt {
			out.share += c.share
		}
		out.culprits = append(out.culprits, c)
	}
	slices.SortFunc(out.culprits, func(a, b culprit) int {
		return cmp.Or(cmp.Compare(b.share, a.share), strings.Compare(a.who, b.who))
	})
	return out
}

// strays is who makes connections that go beyond the plan.
func strays(x model.Flow, some bool) culprit {
	who := meter.WorkloadText(x.Client)
	if x.Connections == 0 {
		return culprit{reason: LongLived, who: fmt.Sprintf("long-lived connections of %s in zone %s", who, x.Client.Zone)}
	}
	return culprit{reason: OffPlan, doubt: some,
		who: fmt.Sprintf("connections of %s on node %s, where another proxy or a mesh may choose", who, x.Client.Node)}
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
	if was.Status == no && (was.Reason == LongLived || was.Reason == Bypassed || was.Reason == OffPlan) {
		limit = forgiven
	}
	if b.share < limit {
		return "", false
	}
	for _, c := range b.culprits {
		if !c.doubt {
			return c.reason, true
		}
	}
	return "", false
}

// text names the culprits; those in doubt only if asked for.
func (b blame) text(doubtful bool) string {
	var parts []string
	rest := 0
	for _, c := range b.culprits {
		switch {
		case c.doubt && !doubtful || c.share < forgiven/2:
		case len(parts) == named:
			rest++
		default:
			parts = append(parts, fmt.Sprintf("%s of bytes: %s", percent(c.share), c.who))
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
			if c.share >= forgiven {
				out = append(out, c.who)
			}
		}
		slices.Sort(out)
		return out
	}
	return other(b.share, o.share, 0.5) && max(b.share, o.share) >= forgiven || !slices.Equal(who(b), who(o))
}
