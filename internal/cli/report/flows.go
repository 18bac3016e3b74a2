package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// partyColumns are who a flow is between; parties are their cells.
func partyColumns() []column {
	return []column{{title: "CLIENT", least: leastName}, {title: "DIALLED", least: leastName}, {title: "SERVER", least: leastName}, {title: "ZONES", least: leastZones}}
}

func parties(f view.Flow, at Place) []string {
	return []string{who(f.Client, at), dialled(f), who(f.Server, at), shortZone(party(f.Client), at) + " → " + shortZone(party(f.Server), at)}
}

// who is a party without its place. Where place is scarce, kinds have the short names that kubectl knows.
func who(p view.Party, at Place) string {
	text := meter.WorkloadText(party(p))
	if at.scarce() {
		text = shortKinds.Replace(text)
	}
	return text
}

var shortKinds = strings.NewReplacer("/deployment/", "/deploy/", "/statefulset/", "/sts/", "/daemonset/", "/ds/", "/replicaset/", "/rs/")

// shortZone is a zone's name, or its end where place is scarce: zones of a region differ there.
func shortZone(p model.Party, at Place) string {
	const end = 3
	z := []rune(meter.Zone(p))
	if !at.scarce() || p.Zone == "" || len(z) <= end+1 {
		return string(z)
	}
	return "…" + string(z[len(z)-end:])
}

// dialled is what the client went to: "shop/web:80", "direct :5432", "shop/dns:53/UDP by NodePort".
func dialled(f view.Flow) string {
	where := ":" + strconv.Itoa(int(f.Port))
	if f.Protocol != model.TCP.String() {
		where += "/" + f.Protocol
	}
	switch {
	case f.Service == "" && f.Port == 0:
		return strings.ToLower(f.Via)
	case f.Service == "":
		return strings.ToLower(f.Via) + " " + where
	case f.Via != string(model.ViaClusterIP):
		where += " by " + f.Via
	}
	return f.Namespace + "/" + f.Service + where
}

func party(p view.Party) model.Party {
	return model.Party{Kind: model.PartyKind(p.Kind), Zone: p.Zone, Node: p.Node, Namespace: p.Namespace, Workload: p.Workload, Block: p.Block}
}

// FlowTable is a line for each pair that exchanged something: what came of one pair in several
// intervals is added up.
type FlowTable struct {
	at    map[flowKey]int
	flows []view.Flow
}

// flowKey is what flows are kept by.
type flowKey struct {
	client, server                         view.Party
	namespace, service, via, proto, family string
	port                                   uint16
}

// Add takes one. It never fails.
func (t *FlowTable) Add(f view.Flow) error {
	k := flowKey{f.Client, f.Server, f.Namespace, f.Service, f.Via, f.Protocol, f.Family, f.Port}
	i, ok := t.at[k]
	if !ok {
		if t.at == nil {
			t.at = map[flowKey]int{}
		}
		t.at[k] = len(t.flows)
		t.flows = append(t.flows, f)
		return nil
	}
	o := &t.flows[i]
	o.Connections += f.Connections
	o.RequestBytes += f.RequestBytes
	o.ResponseBytes += f.ResponseBytes
	o.USD += f.USD
	if f.Reason != nil {
		o.Reason = f.Reason // the latest
	}
	return nil
}

// Write writes the form for people, most bytes first.
func (t *FlowTable) Write(w io.Writer, at Place) error {
	slices.SortStableFunc(t.flows, func(a, b view.Flow) int {
		return cmp.Or(cmp.Compare(b.RequestBytes+b.ResponseBytes, a.RequestBytes+a.ResponseBytes), slices.Compare(parties(a, Place{}), parties(b, Place{})))
	})
	t.at = nil // it is in another order now
	cols := append(partyColumns(), column{title: "REQUESTS", right: true}, column{title: "RESPONSES", right: true},
		column{title: "CONNECTS", right: true}, column{title: "USD", right: true}, column{title: "CROSSES FOR", least: leastName})
	var rows [][]string
	for _, f := range t.flows {
		rows = append(rows, append(parties(f, at), size(f.RequestBytes), size(f.ResponseBytes), strconv.FormatUint(f.Connections, 10), usd(f.USD), reason(f.Reason)))
	}
	return columns(w, cols, rows, at.Width)
}

// Followed writes flows as they come in, one a line, in columns that stay where they are.
type Followed struct {
	w    io.Writer
	cols []column
	at   Place
}

// Follow writes the titles. Without a width nothing is cut, and long names push others aside.
func Follow(w io.Writer, at Place) (*Followed, error) {
	zones := 33 // "ap-northeast-2a → ap-northeast-2b"
	if at.scarce() {
		zones = leastZones
	}
	cols := []column{{title: "UTC", width: 8}, {title: "CLIENT", width: 34, least: leastName}, {title: "DIALLED", width: 30, least: leastName},
		{title: "SERVER", width: 34, least: leastName}, {title: "ZONES", width: zones, least: leastZones}, {title: "REQUESTS", width: 8, right: true},
		{title: "RESPONSES", width: 9, right: true}, {title: "CONNECTS", width: 8, right: true}, {title: "CROSSES FOR", width: 40, least: leastName}}
	measure(cols, nil, at.Width)
	f := &Followed{w: w, cols: cols, at: at}
	if at.Width == 0 {
		for i := range cols {
			cols[i].least = 0
		}
	}
	_, err := fmt.Fprintln(w, rowText(cols, titles(cols)))
	return f, err
}

// Flow writes one.
func (f *Followed) Flow(v view.Flow) error {
	cells := append([]string{v.At.UTC().Format(time.TimeOnly)}, parties(v, f.at)...)
	cells = append(cells, size(v.RequestBytes), size(v.ResponseBytes), strconv.FormatUint(v.Connections, 10), reason(v.Reason))
	for i := range cells {
		cells[i] = plain(cells[i])
	}
	_, err := fmt.Fprintln(f.w, rowText(f.cols, cells))
	return err
}

// FlowLogHeader is the first line of a VPC flow log file, version 2.
const FlowLogHeader = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"

// FlowLog writes a flow as VPC flow log lines, version 2: one for each way in which packets went.
func FlowLog(w io.Writer, f view.Flow) error {
	flow := model.Flow{
		FlowKey: model.FlowKey{Client: party(f.Client), Server: party(f.Server), Service: model.Name{Namespace: f.Namespace, Name: f.Service},
			Port: f.Port, Protocol: protocol(f.Protocol), Via: model.Via(f.Via)},
		FlowCount: model.FlowCount{Connections: f.Connections, RequestBytes: f.RequestBytes, ResponseBytes: f.ResponseBytes,
			RequestPackets: f.RequestPkts, ResponsePackets: f.ResponsePkts, RequestExtra: f.RequestExtra, ResponseExtra: f.ResponseExtra},
	}
	length := time.Duration(f.Seconds * float64(time.Second))
	for _, r := range meter.Records(flow, meter.Record{Start: f.At.Add(-length), End: f.At}) {
		if _, err := fmt.Fprintln(w, r); err != nil {
			return err
		}
	}
	return nil
}

// protocol is the number of a protocol that is told by name, or by number; 0 if it is neither.
func protocol(s string) model.Protocol {
	for _, p := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
		if p.String() == s {
			return p
		}
	}
	n, _ := strconv.ParseUint(s, 10, 8)
	return model.Protocol(n)
}
