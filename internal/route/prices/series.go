package prices

import (
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/route"
)

// era is a price book and since when it holds.
type era struct {
	From string `json:"from"` // "2026-06-01" (0 h UTC) or "2026-06-01T09:00:00+09:00"; the first has none
	Use  string `json:"use"`  // the name of a built-in book, instead of prices
	book
}

// ReadSeries reads price books that hold one after another: {books: [{use: aws}, {from: 2026-06-01, perGB:
// 0.015}]}. What Read takes is a series of one. Name is what the prices are called in results.
func ReadSeries(text []byte, name string) (meter.Series, error) {
	var file struct {
		Books []era `json:"books"`
	}
	if yaml.Unmarshal(text, &file) != nil || file.Books == nil {
		p, err := Read(text, name)
		if err != nil {
			return nil, err
		}
		return meter.NewSeries(meter.Era{Prices: p})
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("price book %s: %w", name, err)
	}
	if len(file.Books) == 0 {
		return nil, fmt.Errorf("price book %s: books: one is needed", name)
	}
	eras := make([]meter.Era, len(file.Books))
	for i, e := range file.Books {
		p, err := e.read(name)
		if err != nil {
			return nil, fmt.Errorf("price book %s: books[%d].%w", name, i, err)
		}
		eras[i] = p
	}
	return meter.NewSeries(eras...)
}

func (e era) read(name string) (meter.Era, error) {
	out := meter.Era{}
	if e.From != "" {
		var err error
		if out.From, err = time.Parse(time.DateOnly, e.From); err != nil {
			if out.From, err = time.Parse(time.RFC3339, e.From); err != nil {
				return out, fmt.Errorf("from: %q is neither 2026-06-01 nor 2026-06-01T09:00:00Z", e.From)
			}
		}
	}
	if e.Use == "" {
		p, err := e.prices()
		p.Name = name
		out.Prices = p
		return out, err
	}
	if e.PerGB != nil || e.Pairs != nil || e.Receiver != nil {
		return out, fmt.Errorf("use: %s has prices of its own", e.Use)
	}
	p, ok := route.Book(e.Use)
	if !ok {
		return out, fmt.Errorf("use: %q is none of %v", e.Use, route.Books())
	}
	out.Prices = p
	return out, nil
}
