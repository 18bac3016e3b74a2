package metering

import (
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

const (
	// window is how much of the past is told of as now.
	window = time.Minute
	// most is how many flows are remembered; beyond it nodes' names are left out of what comes.
	most = 200_000
)

// recent is the flows of the last minute or two, by when they were counted: in slots as long as the interval of reports, so
// that in each every node has told about once.
type recent struct {
	begin time.Time // what was before is not known
	slots []*slot   // in order of time
	most  int
	rows  int
}

// slot is the flows of one interval, each once.
type slot struct {
	span
	parties       meter.Numbers[model.Party]
	ways          meter.Numbers[meter.Way]
	at            map[[3]uint32]int32
	rows          []row
	of            map[asked][]int32  // rows, by Service
	around        map[server][]int32 // rows that chose no Service's endpoint: to a workload directly, or as an endpoint of a headless Service
	coarse        bool               // some have no nodes
	inZone, cross uint64             // bytes
}

// server is a workload that answers, in one family.
type server struct {
	namespace, workload string
	v6                  bool
}

func serverOf(f *model.Flow) server { return server{f.Server.Namespace, f.Server.Workload, f.V6} }

type row struct {
	client, server, way uint32
	model.FlowCount
}

func newRecent(now time.Time) *recent { return &recent{begin: now, most: most} }

// add remembers what was counted until an instant.
func (r *recent) add(at time.Time, every time.Duration, flows []model.Flow) {
	if at.Before(r.begin) {
		return
	}
	s := r.slot(at, every)
	if s == nil {
		return
	}
	for i := range flows {
		f := &flows[i]
		client, server := f.Client, f.Server
		if r.rows >= r.most {
			client.Node, server.Node, s.coarse = "", "", true
		}
		k := [3]uint32{s.parties.Number(client), s.parties.Number(server), s.ways.Number(meter.WayOf(f.FlowKey))}
		n, ok := s.at[k]
		if !ok {
			if r.rows >= 2*r.most { // even so it is too much
				if r.slots[0] == s {
					r.begin = s.to // who asks for more is answered from the store
					continue
				}
				r.drop()
			}
			n = int32(len(s.rows))
			s.at[k] = n
			s.rows = append(s.rows, row{client: k[0], server: k[1], way: k[2]})
			r.rows++
			if f.Service != (model.Name{}) {
				a := asked{f.Service, f.V6}
				s.of[a] = append(s.of[a], n)
			}
			if (f.Via == model.ViaDirect || f.Via == model.ViaHeadless) && f.Server.Workload != "" {
				s.around[serverOf(f)] = append(s.around[serverOf(f)], n)
			}
		}
		s.rows[n].Add(f.FlowCount)
		switch {
		case f.Client.Zone == "" || f.Server.Zone == "":
		case f.Client.Zone == f.Server.Zone:
			s.inZone += f.Bytes()
		default:
			s.cross += f.Bytes()
		}
	}
}

// slot returns the one that an instant lies in; nil for what is forgotten already.
func (r *recent) slot(at time.Time, every time.Duration) *slot {
	for _, s := range slices.Backward(r.slots) {
		if !at.Before(s.from) && at.Before(s.to) {
			return s
		}
	}
	from := at.Truncate(every)
	s := &slot{span: span{from, from.Add(every)}, at: map[[3]uint32]int32{}, of: map[asked][]int32{}, around: map[server][]int32{}}
	if n := len(r.slots); n > 0 {
		last := r.slots[n-1]
		if s.to.Before(last.from) && s.from.Before(r.slots[0].from) {
			return nil
		}
		if s.from.Before(last.to) && s.to.After(last.to) {
			s.from = last.to // the interval has become another
		}
	}
	r.slots = append(r.slots, s)
	slices.SortFunc(r.slots, func(a, b *slot) int { return a.from.Compare(b.from) })
	return s
}

// forget drops slots that no window needs.
func (r *recent) forget(now time.Time) {
	for len(r.slots) > 1 && now.Sub(r.slots[1].from) > window+tick {
		r.drop()
	}
	if len(r.slots) == 1 && now.Sub(r.slots[0].to) > 2*window {
		r.drop()
	}
}

// drop forgets the oldest slot.
func (r *recent) drop() {
	s := r.slots[0]
	if s.to.After(r.begin) {
		r.begin = s.to
	}
	r.rows -= len(s.rows)
	r.slots = r.slots[1:]
}

// since returns the slots that have all from an instant on; false if it is not known.
func (r *recent) since(from time.Time) ([]*slot, time.Time, bool) {
	for i, s := range r.slots {
		if s.to.After(from) {
			begin := from
			if s.from.Before(from) {
				begin = s.from
			}
			if r.begin.After(begin) {
				begin = r.begin
			}
			return r.slots[i:], begin, !begin.After(from)
		}
	}
	return nil, time.Time{}, false
}

// service returns the flows to one Service since an instant, or since when they are known, and those to the
// same workloads that went around it.
func (r *recent) service(of asked, from time.Time) ([]model.Flow, time.Time, bool) {
	slots, begin, _ := r.since(from)
	if len(slots) == 0 {
		return nil, begin, false
	}
	var out []model.Flow
	servers := map[server]bool{}
	for _, s := range slots {
		for _, n := range s.of[of] {
			f := s.flow(s.rows[n])
			out = append(out, f)
			if f.Server.Workload != "" && f.Via != model.ViaHeadless {
				servers[serverOf(&f)] = true
			}
		}
	}
	for _, s := range slots {
		for w := range servers {
			for _, n := range s.around[w] {
				if f := s.flow(s.rows[n]); f.Service != of.service {
					out = append(out, f)
				}
			}
		}
	}
	return out, begin, true
}

func (s *slot) flow(r row) model.Flow {
	return model.Flow{FlowKey: s.ways.Values[r.way].Key(s.parties.Values[r.client], s.parties.Values[r.server]), FlowCount: r.FlowCount}
}

// copies are slots as they are now, for reading while more comes.
func copies(slots []*slot) []*slot {
	out := make([]*slot, len(slots))
	for i, s := range slots {
		out[i] = &slot{span: s.span, rows: slices.Clone(s.rows), coarse: s.coarse}
		out[i].parties.Values, out[i].ways.Values = s.parties.Values, s.ways.Values // they only grow
	}
	return out
}

// locality is the share of bytes between known zones that stayed in one; false if there were none.
func (r *recent) locality() (float64, bool) {
	var in, cross uint64
	for _, s := range r.slots {
		in, cross = in+s.inZone, cross+s.cross
	}
	if in+cross == 0 {
		return 0, false
	}
	return float64(in) / float64(in+cross), true
}
