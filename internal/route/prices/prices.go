// Package prices reads price books as users write them.
package prices

import (
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// book is a price book in YAML or JSON.
type book struct {
	PerGB *float64 `json:"perGB"` // USD for 10^9 bytes that cross zones; what pairs lack
	Pairs []pair   `json:"pairs"`
	// Receiver is the part of a price that who receives pays, 0 to 1; the rest is who sends'.
	Receiver *float64 `json:"receiver"`
}

type pair struct {
	From  string   `json:"from"` // the client's zone
	To    string   `json:"to"`   // the endpoint's
	PerGB *float64 `json:"perGB"`
}

// Read reads a price book: {perGB: 0.02, receiver: 0.5, pairs: [{from: a, to: b, perGB: 0.01}]}. Without perGB it
// needs all pairs of the zones that it names; zones that it does not name cost as the dearest pair.
// Name is what the prices are called in results.
func Read(text []byte, name string) (model.Prices, error) {
	var b book
	if err := yaml.UnmarshalStrict(text, &b); err != nil {
		return model.Prices{}, fmt.Errorf("price book %s: %w", name, err)
	}
	p, err := b.prices()
	if err != nil {
		return model.Prices{}, fmt.Errorf("price book %s: %w", name, err)
	}
	p.Name = name
	return p, nil
}

func (b book) prices() (model.Prices, error) {
	p := model.Prices{}
	if b.PerGB == nil && len(b.Pairs) == 0 {
		return p, fmt.Errorf("perGB: a price is needed, or pairs")
	}
	if b.PerGB != nil {
		if err := route.CheckPrice(*b.PerGB); err != nil {
			return p, fmt.Errorf("perGB: %w", err)
		}
		p.PerGB = *b.PerGB
	}
	if b.Receiver != nil {
		if err := route.CheckReceiver(*b.Receiver); err != nil {
			return p, fmt.Errorf("receiver: %w", err)
		}
		p.Receiver = *b.Receiver
	}
	if len(b.Pairs) == 0 {
		return p, nil
	}
	p.Pairs = map[model.ZonePair]float64{}
	for i, x := range b.Pairs {
		if err := x.check(p.Pairs); err != nil {
			return p, fmt.Errorf("pairs[%d].%w", i, err)
		}
		p.Pairs[model.ZonePair{From: x.From, To: x.To}] = *x.PerGB
	}
	if b.PerGB == nil {
		for _, v := range p.Pairs {
			p.PerGB = max(p.PerGB, v)
		}
		return p, whole(p.Pairs)
	}
	return p, nil
}

func (x pair) check(before map[model.ZonePair]float64) error {
	switch {
	case x.From == "":
		return fmt.Errorf("from: a zone is needed")
	case x.To == "":
		return fmt.Errorf("to: a zone is needed")
	case x.From == x.To:
		return fmt.Errorf("to: within zone %s nothing costs", x.To)
	case x.PerGB == nil:
		return fmt.Errorf("perGB: a price is needed")
	}
	if err := route.CheckPrice(*x.PerGB); err != nil {
		return fmt.Errorf("perGB: %w", err)
	}
	if _, ok := before[model.ZonePair{From: x.From, To: x.To}]; ok {
		return fmt.Errorf("to: %s to %s is there twice", x.From, x.To)
	}
	return nil
}

// whole tells of a pair that has no price.
func whole(pairs map[model.ZonePair]float64) error {
	var zones []string
	for p := range pairs {
		zones = append(zones, p.From, p.To)
	}
	slices.Sort(zones)
	zones = slices.Compact(zones)
	for _, from := range zones {
		for _, to := range zones {
			if _, ok := pairs[model.ZonePair{From: from, To: to}]; !ok && from != to {
				return fmt.Errorf("pairs: %s to %s is missing, and there is no perGB for it", from, to)
			}
		}
	}
	return nil
}
