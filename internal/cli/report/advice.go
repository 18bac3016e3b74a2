package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Advice is what brings a plan to a wished in-zone share: pods to add, or pods to move.
type Advice struct {
	Wish   float64 `json:"wish"`
	InZone float64 `json:"inZone"` // as it is
	Add    []Add   `json:"add"`
	Added  float64 `json:"added"` // the share then
	Move   []Move  `json:"move"`
	Moved  float64 `json:"moved"`         // the share then
	Why    string  `json:"why,omitempty"` // why one of the two cannot be
}

// Add is pods to add to a zone.
type Add struct {
	Zone string `json:"zone"`
	Pods int    `json:"pods"`
}

// Move is pods to move from one zone to another.
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
	Pods int    `json:"pods"`
}

// Loss is what happens if a zone is lost. Loads are of the most loaded endpoint, 1 being the fair
// share that it has today.
type Loss struct {
	Zone    string  `json:"zone"`
	Down    bool    `json:"down"`    // no endpoint is left
	MaxLoad float64 `json:"maxLoad"` // its clients are lost with it
	AllLoad float64 `json:"allLoad"` // its clients come in by the other zones
	In      string  `json:"in"`      // the zone in which that is
	Above   bool    `json:"above"`   // allLoad is more than the bound of today
}

// Advise puts advice to the plans.
func (p *Plan) Advise(of func(svc model.Name, v6 bool) (route.Advice, bool)) {
	for i := range p.Services {
		s := &p.Services[i]
		if !s.planned() {
			continue
		}
		if a, ok := of(model.Name{Namespace: s.Namespace, Name: s.Name}, s.Family == familyName(true)); ok {
			s.Advice = makeAdvice(a)
		}
	}
}

func makeAdvice(a route.Advice) *Advice {
	out := &Advice{Wish: a.Wish, InZone: round(a.InZone), Add: []Add{}, Added: round(a.Added), Move: []Move{}, Moved: round(a.Moved), Why: a.Why}
	for _, x := range a.Adds {
		out.Add = append(out.Add, Add(x))
	}
	for _, x := range a.Moves {
		out.Move = append(out.Move, Move(x))
	}
	return out
}

func makeLoss(l route.Loss, maxOverload float64) Loss {
	return Loss{l.Zone, l.Down, round(l.MaxLoad), round(l.AllLoad), l.In, l.Down || l.AllLoad > 1+maxOverload+1e-9}
}

// PlanAdvice writes the advice that plans carry.
func PlanAdvice(w io.Writer, p Plan) error {
	first := true
	for _, s := range p.Services {
		if s.Advice == nil {
			continue
		}
		if first {
			if _, err := fmt.Fprintf(w, "\nFor %s in zone:\n", percent(s.Advice.Wish)); err != nil {
				return err
			}
			first = false
		}
		name := s.Namespace + "/" + s.Name
		if s.Family == familyName(true) {
			name += " (IPv6)"
		}
		if err := paragraph(w, "  ", name+": "+adviceText(*s.Advice)); err != nil {
			return err
		}
	}
	return nil
}

func adviceText(a Advice) string {
	if a.InZone >= a.Wish-1e-9 {
		return fmt.Sprintf("nothing to do, the plan reaches %s.", percent(a.InZone))
	}
	var ways []string
	if len(a.Add) > 0 {
		var adds []string
		for _, x := range a.Add {
			adds = append(adds, fmt.Sprintf("%s to %s", count(x.Pods, "pod"), orNone(x.Zone)))
		}
		ways = append(ways, fmt.Sprintf("add %s (%s)", strings.Join(adds, ", "), percent(a.Added)))
	}
	if len(a.Move) > 0 {
		var moves []string
		for _, x := range a.Move {
			moves = append(moves, fmt.Sprintf("%s from %s to %s", count(x.Pods, "pod"), orNone(x.From), orNone(x.To)))
		}
		ways = append(ways, fmt.Sprintf("move %s (%s)", strings.Join(moves, ", "), percent(a.Moved)))
	}
	text := strings.Join(ways, ", or ")
	if a.Why != "" {
		if text != "" {
			text += "; "
		}
		text += a.Why
	}
	return text + "."
}
