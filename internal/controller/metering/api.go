package metering

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// maxNames is how many lines one answer adds up at a time: what has yet another name goes into one together.
const maxNames = 100_000

// more is the name of what had no line of its own.
const more = "(more)"

// Handler answers on the pod's loopback; see view. A nil Meter answers that there is none.
func (m *Meter) Handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(path, by string, since time.Duration, do func(t *term, w http.ResponseWriter, r *http.Request, q question) error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			t, why := m.serving()
			if t == nil {
				http.Error(w, why, http.StatusServiceUnavailable)
				return
			}
			q, err := ask(r.URL.Query(), by, since)
			if err == nil {
				err = do(t, w, r, q)
			}
			if away := (*past.Error)(nil); errors.As(err, &away) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			} else if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	answer("/v1/traffic", "services", window, (*term).answerTraffic)
	answer("/v1/flows", "", -1, (*term).answerFlows)
	answer("/v1/cost", "services", 7*24*time.Hour, (*term).answerCost)
	return mux
}

// serving returns nil and why nothing can be told here.
func (m *Meter) serving() (*term, string) {
	if m == nil {
		return nil, "this controller has no meter; install the chart with controller.meter.enabled=true"
	}
	if t := m.term(); t != nil {
		return t, ""
	}
	if leader := m.Leader(); leader != "" {
		return nil, fmt.Sprintf("%s leads; ask there, or again in some seconds", leader)
	}
	return nil, "no replica leads yet; ask again in some seconds"
}

// reasons tells why flows crossed zones; a Service is looked up once.
func (t *term) reasons() func(model.Flow) meter.Reason {
	known := t.knowledge()
	t.mu.Lock()
	weighted := map[string]bool{"": t.fleet.weighted("")}
	for n := range t.fleet.agents {
		weighted[n] = true
	}
	t.mu.Unlock()
	return func(f model.Flow) meter.Reason {
		k := known(asked{f.Service, f.V6})
		return meter.Why(f, meter.Routing{Mode: k.Mode, Plan: k.Plan, Weighted: weighted[f.Client.Node]})
	}
}

// knowledge asks the planner of each Service once.
func (t *term) knowledge() func(asked) routes.Known {
	seen := map[asked]routes.Known{}
	return func(a asked) routes.Known {
		k, ok := seen[a]
		if !ok {
			k, _ = t.Known(a.service, a.v6)
			seen[a] = k
		}
		return k
	}
}

// name returns how flows are named by what a caller says.
func (t *term) name(ctx context.Context, by string, now time.Time) (meter.By, error) {
	switch by {
	case "services":
		return meter.ByService, nil
	case "namespaces":
		return meter.ByNamespace, nil
	case "workloads":
		return meter.ByClient, nil
	case "flows":
		return meter.ByFlow, nil
	}
	if key, ok := strings.CutPrefix(by, "label:"); ok && key != "" {
		label, err := t.labels.of(ctx, key, now)
		return meter.ByLabel(label), err
	}
	return nil, fmt.Errorf("by: %q is none of zones, services, namespaces, workloads, flows and label:KEY", by)
}

func (t *term) answerTraffic(w http.ResponseWriter, r *http.Request, q question) error {
	now := time.Now()
	out := view.Traffic{Schema: view.TrafficSchema, By: q.by, Lines: []view.Line{}}
	var zones meter.ZoneSums
	why := t.reasons()
	total := meter.NewSums(func(model.FlowKey) string { return "total" }, why)
	names, keys := map[string]bool{}, map[string]model.FlowKey{}
	var sums *meter.Sums
	if q.by != "zones" {
		by, err := t.name(r.Context(), q.by, now)
		if err != nil {
			return err
		}
		sums = meter.NewSums(func(k model.FlowKey) string {
			name := by(k)
			if !names[name] {
				if len(names) >= maxNames {
					return more
				}
				names[name] = true
				if q.by == "flows" {
					keys[name] = k
				}
			}
			return name
		}, why)
	}
	detail := q.by == "flows" || q.filter.node != ""
	interval, notes, err := t.scan(r.Context(), q, detail, now, func(p piece) error {
		if sums == nil {
			zones.Add(p.flows, p.tariff)
		} else {
			sums.Add(p.flows, p.tariff)
		}
		total.Add(p.flows, p.tariff)
		return r.Context().Err()
	})
	if err != nil {
		return err
	}
	d := interval.To.Sub(interval.From)
	out.Interval, out.Notes, out.Total = interval, append(t.notes(now), notes...), view.Line{Name: "total"}
	for _, l := range total.Lines() {
		out.Total = line(l, d)
	}
	if sums == nil {
		out.Zones = zoneLines(zones.Zones(), d)
		return write(w, out)
	}
	for _, l := range meter.Top(sums.Lines(), q.order, q.limit) {
		v := line(l, d)
		if k, ok := keys[l.Name]; ok {
			f := flow(model.Flow{FlowKey: k, FlowCount: l.FlowCount}, span{interval.From, interval.To}, l.USD(), nil)
			v.Flow = &f
		}
		out.Lines = append(out.Lines, v)
	}
	if len(names) >= maxNames {
		out.Notes = append(out.Notes, fmt.Sprintf("there are more than %d names; %s has the rest", maxNames, more))
	}
	return write(w, out)
}

func zoneLines(zones []meter.ZoneTraffic, d time.Duration) []view.Zones {
	out := []view.Zones{}
	for _, z := range zones {
		out = append(out, view.Zones{From: z.From, To: z.To, Bytes: z.Bytes, ExtraBytes: z.Extra, Packets: z.Packets,
			USD: z.USD, USDPerMonth: meter.PerMonth(z.USD, d)})
	}
	return out
}

func line(l meter.Line, d time.Duration) view.Line {
	out := view.Line{Name: l.Name, Connections: l.Connections, Bytes: l.Bytes(), InZoneBytes: l.InZone, CrossZoneBytes: l.CrossZone,
		OutsideBytes: l.Outside, UnknownBytes: l.Unknown, Packets: l.RequestPackets + l.ResponsePackets,
		InZoneShare: inZone(l.Traffic), USD: l.USD(), USDPerMonth: meter.PerMonth(l.USD(), d)}
	for _, c := range l.Reasons {
		out.Reasons = append(out.Reasons, view.Reason{Cause: string(c.Reason.Cause), Detail: c.Reason.Detail, Bytes: c.Bytes})
	}
	return out
}

func inZone(t meter.Traffic) *float64 {
	if share, ok := t.InZoneShare(); ok {
		return &share
	}
	return nil
}

func flow(f model.Flow, of span, usd float64, why *meter.Reason) view.Flow {
	out := view.Flow{
		Schema: view.FlowSchema, At: of.to.UTC(), Seconds: of.to.Sub(of.from).Seconds(), Client: party(f.Client), Server: party(f.Server),
		Namespace: f.Service.Namespace, Service: f.Service.Name, Port: f.Port, Protocol: f.Protocol.String(), Via: string(f.Via), Family: "IPv4",
		Connections: f.Connections, RequestBytes: f.RequestBytes, ResponseBytes: f.ResponseBytes, RequestExtra: f.RequestExtra,
		ResponseExtra: f.ResponseExtra, RequestPkts: f.RequestPackets, ResponsePkts: f.ResponsePackets, USD: usd,
	}
	if f.V6 {
		out.Family = "IPv6"
	}
	if why != nil {
		out.Reason = &view.Reason{Cause: string(why.Cause), Detail: why.Detail, Bytes: f.Bytes()}
	}
	return out
}

func party(p model.Party) view.Party {
	return view.Party{Kind: string(p.Kind), Zone: p.Zone, Node: p.Node, Namespace: p.Namespace, Workload: p.Workload, Block: p.Block}
}

func write(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked is gone
	return nil
}

// books are the names of the price books in force in an interval.
func books(s meter.Series, i view.Interval) []string {
	var out []string
	for n, e := range s {
		over := n+1 < len(s) && !s[n+1].From.After(i.From)
		if !over && e.From.Before(i.To) {
			out = append(out, cmp.Or(e.Prices.Name, "(no name)"))
		}
	}
	return slices.Compact(out)
}
