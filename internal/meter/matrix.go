package meter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// What stands for a zone where there is none. No zone can have such a name.
const (
	ZoneOutside = "(outside)"
	ZoneUnknown = "(unknown)"
)

// Zone returns the zone where a party's bytes come from and go to.
func Zone(p model.Party) string {
	switch {
	case p.Zone != "":
		return p.Zone
	case p.Kind == model.Outside:
		return ZoneOutside
	}
	return ZoneUnknown
}

// ZoneTraffic is what went from one zone to another, that way only: requests of clients there and
// responses of servers there.
type ZoneTraffic struct {
	From, To string
	Bytes    uint64 // of IP packets as the kernel passes them on
	Extra    uint64 // bytes of headers that segmentation adds on the wire
	Packets  uint64 // on the wire
	USD      float64
}

// ZoneSums adds up what goes between zones, and within each, bit by bit. The zero value has nothing.
type ZoneSums struct {
	of map[model.ZonePair]*ZoneTraffic
}

// Add adds flows, at the prices of their time.
func (s *ZoneSums) Add(flows []model.Flow, t Tariff) {
	for i := range flows {
		f := &flows[i]
		client, server := Zone(f.Client), Zone(f.Server)
		s.add(client, server, f.RequestBytes, f.RequestExtra, f.RequestPackets, t.bytes(f.Client.Zone, f.Server.Zone, f.RequestBytes, 0).USD())
		s.add(server, client, f.ResponseBytes, f.ResponseExtra, f.ResponsePackets, t.bytes(f.Client.Zone, f.Server.Zone, 0, f.ResponseBytes).USD())
	}
}

func (s *ZoneSums) add(from, to string, bytes, extra, packets uint64, usd float64) {
	if bytes == 0 && packets == 0 && extra == 0 {
		return
	}
	k := model.ZonePair{From: from, To: to}
	z := s.of[k]
	if z == nil {
		if s.of == nil {
			s.of = map[model.ZonePair]*ZoneTraffic{}
		}
		z = &ZoneTraffic{From: from, To: to}
		s.of[k] = z
	}
	z.Bytes += bytes
	z.Extra += extra
	z.Packets += packets
	z.USD += usd
}

// Zones returns the sums, ordered.
func (s *ZoneSums) Zones() []ZoneTraffic {
	out := make([]ZoneTraffic, 0, len(s.of))
	for _, z := range s.of {
		out = append(out, *z)
	}
	slices.SortFunc(out, func(a, b ZoneTraffic) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return out
}

// Zones returns what went between zones, and within each, ordered.
func Zones(flows []model.Flow, t Tariff) []ZoneTraffic {
	var s ZoneSums
	s.Add(flows, t)
	return s.Zones()
}

// Traffic is a sum of flows. Bytes are of both directions.
type Traffic struct {
	model.FlowCount
	InZone    uint64 // bytes between parties of one zone
	CrossZone uint64 // bytes between parties of two zones
	Outside   uint64 // bytes with parties outside the cluster, where no node passes them on to another
	Unknown   uint64 // bytes with parties whose zone is not known
	Money
}

// Add adds a flow and what it costs.
func (t *Traffic) Add(f model.Flow, m Money) {
	t.FlowCount.Add(f.FlowCount)
	t.Money.Add(m)
	client, server := Zone(f.Client), Zone(f.Server)
	switch {
	case client == ZoneOutside || server == ZoneOutside:
		t.Outside += f.Bytes()
	case client == ZoneUnknown || server == ZoneUnknown:
		t.Unknown += f.Bytes()
	case client == server:
		t.InZone += f.Bytes()
	default:
		t.CrossZone += f.Bytes()
	}
}

// InZoneShare is the part of the bytes between known zones that stays in one, 0 to 1; false if there
// are none.
func (t Traffic) InZoneShare() (float64, bool) {
	if t.InZone+t.CrossZone == 0 {
		return 0, false
	}
	return float64(t.InZone) / (float64(t.InZone) + float64(t.CrossZone)), true
}

// By names the line that a flow is on.
type By func(model.FlowKey) string

// ByService is by the Service that was dialled.
func ByService(k model.FlowKey) string {
	if k.Service == (model.Name{}) {
		return "(not a Service)"
	}
	return k.Service.String()
}

// ByClient is by the workload that opened the connection.
func ByClient(k model.FlowKey) string { return WorkloadText(k.Client) }

// ByServer is by the workload that answered.
func ByServer(k model.FlowKey) string { return WorkloadText(k.Server) }

// ByNamespace is by the namespace that a flow is put down to; see Payer.
func ByNamespace(k model.FlowKey) string {
	if ns := Payer(k); ns != "" {
		return ns
	}
	return "(no namespace)"
}

// ByLabel is by a label of that namespace, its team for example: label returns its value, empty if
// the namespace has none.
func ByLabel(label func(namespace string) string) By {
	return func(k model.FlowKey) string {
		if ns := Payer(k); ns != "" {
			if v := label(ns); v != "" {
				return v
			}
		}
		return "(no label)"
	}
}

// Payer returns the namespace that a flow is put down to: its client's, for who opens a connection
// decides that there is one; else that of the Service, else the server's.
func Payer(k model.FlowKey) string {
	return cmp.Or(k.Client.Namespace, k.Service.Namespace, k.Server.Namespace)
}

// Line is a sum of flows under one name.
type Line struct {
	Name string
	Traffic
	Reasons []Crossing // why bytes crossed zones, most bytes first
}

// Crossing is how many bytes crossed zones for a reason.
type Crossing struct {
	Reason Reason
	Bytes  uint64
}

// Sums adds up flows by name, bit by bit.
type Sums struct {
	by    By
	why   func(model.Flow) Reason
	at    map[string]int
	lines []Line
}

// NewSums returns sums that have nothing yet. A nil why is for no reasons.
func NewSums(by By, why func(model.Flow) Reason) *Sums {
	return &Sums{by: by, why: why, at: map[string]int{}}
}

// Add adds flows, at the prices of their time.
func (s *Sums) Add(flows []model.Flow, t Tariff) {
	for i := range flows {
		f := &flows[i]
		name := s.by(f.FlowKey)
		n, ok := s.at[name]
		if !ok {
			n = len(s.lines)
			s.at[name] = n
			s.lines = append(s.lines, Line{Name: name})
		}
		l := &s.lines[n]
		l.Add(*f, t.Cost(*f))
		if s.why != nil && Crosses(f.FlowKey) {
			l.cross(s.why(*f), f.Bytes())
		}
	}
}

// Len is the number of names.
func (s *Sums) Len() int { return len(s.lines) }

// Lines returns the sums, ordered by name. Nothing may be added after that.
func (s *Sums) Lines() []Line {
	slices.SortFunc(s.lines, func(a, b Line) int { return strings.Compare(a.Name, b.Name) })
	for i := range s.lines {
		slices.SortFunc(s.lines[i].Reasons, func(a, b Crossing) int {
			return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Reason.String(), b.Reason.String()))
		})
	}
	return s.lines
}

// Group sums up flows by name, ordered by it. A nil why is for no reasons.
func Group(flows []model.Flow, by By, t Tariff, why func(model.Flow) Reason) []Line {
	s := NewSums(by, why)
	s.Add(flows, t)
	return s.Lines()
}

func (l *Line) cross(r Reason, bytes uint64) {
	for i := range l.Reasons {
		if l.Reasons[i].Reason == r {
			l.Reasons[i].Bytes += bytes
			return
		}
	}
	l.Reasons = append(l.Reasons, Crossing{r, bytes})
}

// Crosses tells whether a flow goes from one known zone to another.
func Crosses(k model.FlowKey) bool {
	return k.Client.Zone != "" && k.Server.Zone != "" && k.Client.Zone != k.Server.Zone
}
