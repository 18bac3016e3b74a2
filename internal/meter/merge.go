package meter

import (
	"github.com/zonewise/zonewise/internal/model"
)

// Report is what one node saw in one interval.
type Report struct {
	Node  string
	Flows []Observed
}

// Metered tells which nodes have a meter, whether or not their report is there already: what is
// late will come.
type Metered struct {
	Nodes map[string]bool
	All   bool // every node of the cluster has one
}

// Merged is the truth made of reports.
type Merged struct {
	Flows    []model.Flow // each key once, ordered
	Twice    uint64       // bytes left out because the client's node tells of them
	Passing  uint64       // bytes left out because they only passed by
	Doubtful uint64       // bytes in Flows of which a client's node that nobody knows may tell, too
}

// Merge makes one truth of what nodes saw, whatever the order of reports. The client's node is
// believed for both directions; the server's only where the client's has no meter.
func Merge(reports []Report, metered Metered) Merged {
	var m Merged
	var s sum
	for _, r := range reports {
		for i := range r.Flows {
			f := &r.Flows[i]
			switch metered.trust(f) {
			case passing:
				m.Passing += f.Bytes()
				continue
			case twice:
				m.Twice += f.Bytes()
				continue
			case doubtful:
				m.Doubtful += f.Bytes()
			}
			s.add(&f.Flow)
		}
	}
	m.Flows = s.sorted()
	return m
}

// trust is what a flow is worth, given who saw it.
type trust int

const (
	believed trust = iota
	doubtful       // believed, for there may be nobody else who tells
	twice
	passing
)

func (m Metered) trust(f *Observed) trust {
	switch f.Observer {
	case AtClient:
		return believed
	case AtServer:
	default:
		return passing
	}
	c := f.Client
	switch {
	case c.Kind == model.Outside:
		return believed
	case c.Node != "" && (m.All || m.Nodes[c.Node]):
		return twice
	case c.Node != "":
		return believed
	case c.Kind == model.Unknown && f.Server.Kind == model.Unknown:
		return doubtful // out of a full map: who knows from where
	case m.All:
		return twice // some pod, and its node has a meter
	}
	return doubtful
}
