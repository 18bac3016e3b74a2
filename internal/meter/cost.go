package meter

import (
	"fmt"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Month is what a monthly price stands for: 730 hours.
const Month = 730 * time.Hour

// Era is a price book and since when it holds; the zero time is since ever.
type Era struct {
	From   time.Time
	Prices model.Prices
}

// Series is price books one after another: each holds until the next begins.
type Series []Era

// NewSeries puts books in order. The first must hold since ever, or there would be bytes without a
// price.
func NewSeries(eras ...Era) (Series, error) {
	s := Series(slices.Clone(eras))
	slices.SortStableFunc(s, func(a, b Era) int { return a.From.Compare(b.From) })
	for i, e := range s {
		switch {
		case i == 0 && !e.From.IsZero():
			return nil, fmt.Errorf("price book %s: from %s: no book holds before it", e.Prices.Name, since(e.From))
		case i > 0 && s[i-1].From.Equal(e.From):
			return nil, fmt.Errorf("price books %s and %s: both from %s", s[i-1].Prices.Name, e.Prices.Name, since(e.From))
		}
		if err := route.CheckPrices(e.Prices); err != nil {
			return nil, fmt.Errorf("price book %s: %w", e.Prices.Name, err)
		}
	}
	return s, nil
}

func since(t time.Time) string {
	if t.IsZero() {
		return "the beginning"
	}
	return t.UTC().Format(time.RFC3339)
}

// At returns the book that holds at an instant; the zero one, by which all is free, if there are none.
func (s Series) At(t time.Time) model.Prices {
	var p model.Prices
	for _, e := range s {
		if e.From.After(t) {
			break
		}
		p = e.Prices
	}
	return p
}

// Tariff is the prices of an interval: books in force in it, each for its part.
type Tariff struct{ parts []part }

type part struct {
	share  float64 // of the interval; sum 1
	prices model.Prices
}

// Tariff returns the prices of what went from an instant to another. Where a price changes between,
// bytes are taken to have gone evenly.
func (s Series) Tariff(from, to time.Time) Tariff {
	if !to.After(from) {
		return Tariff{[]part{{1, s.At(from)}}}
	}
	var t Tariff
	for i, e := range s {
		begin, end := e.From, to
		if begin.Before(from) {
			begin = from
		}
		if i+1 < len(s) && s[i+1].From.Before(end) {
			end = s[i+1].From
		}
		if end.After(begin) {
			t.parts = append(t.parts, part{end.Sub(begin).Seconds() / to.Sub(from).Seconds(), e.Prices})
		}
	}
	return t
}

// Money is what a flow costs, in USD, by whose bill it is on: the client's or the server's.
type Money struct{ Client, Server float64 }

// USD is both together.
func (m Money) USD() float64 { return m.Client + m.Server }

// Add adds o to m.
func (m *Money) Add(o Money) {
	m.Client += o.Client
	m.Server += o.Server
}

// PerMonth returns what USD spent within d make in a month; 0 where d is none.
func PerMonth(usd float64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return usd * (Month.Seconds() / d.Seconds())
}

// Cost is what a flow costs: both directions' bytes, without Extra, at the price between its zones.
// Within a zone, and where a zone is not known or is outside, that is nothing.
func (t Tariff) Cost(f model.Flow) Money {
	return t.bytes(f.Client.Zone, f.Server.Zone, f.RequestBytes, f.ResponseBytes)
}

// bytes prices what clients in one zone and servers in another exchange.
func (t Tariff) bytes(client, server string, there, back uint64) Money {
	var m Money
	if client == "" || server == "" || client == server {
		return m
	}
	for _, p := range t.parts {
		usd := p.share * p.prices.Of(client, server) / 1e9 // for a byte
		received := p.prices.Receiver
		m.Client += usd * (float64(there)*(1-received) + float64(back)*received)
		m.Server += usd * (float64(there)*received + float64(back)*(1-received))
	}
	return m
}
