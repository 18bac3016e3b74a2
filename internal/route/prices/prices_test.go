package prices_test

import (
	"math"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/route/prices"
)

func TestRead(t *testing.T) {
	p, err := prices.Read([]byte("perGB: 0.02\npairs:\n- {from: a, to: b, perGB: 0.01}\n- {from: b, to: a, perGB: 0}\n"), "ours.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "ours.yaml" || p.Of("a", "b") != 0.01 || p.Of("b", "a") != 0 || p.Of("a", "c") != 0.02 || p.Of("c", "c") != 0 {
		t.Errorf("%+v", p)
	}
	p, err = prices.Read([]byte(`{"pairs": [{"from": "a", "to": "b", "perGB": 0.01}, {"from": "b", "to": "a", "perGB": 0.03}]}`), "x")
	if err != nil || p.PerGB != 0.03 {
		t.Errorf("%+v, %v: what the book does not know costs as the dearest that it does", p, err)
	}
}

func TestBadBooks(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "perGB: a price is needed, or pairs",
		"perGB: -1":                            "perGB: -1 is negative",
		"perGB: 2000":                          "perGB: 2000 USD is more than 1000",
		"perGB: cheap":                         "perGB",
		"perGB: .nan":                          "NaN",
		"perGB: 1\nperGB: 2":                   "perGB",
		"perGB: 1\nreceiver: 2":                "receiver: 2 is more than 1",
		"perGB: 1\nreceiver: -0.5":             "receiver: -0.5 is negative",
		"perGb: [":                             "yaml",
		"price: 1":                             "price",
		"perGB: 1\npairs: [{to: b}]":           "pairs[0].from: a zone is needed",
		"perGB: 1\npairs: [{from: b}]":         "pairs[0].to: a zone is needed",
		"pairs: [{from: a, to: b}]":            "pairs[0].perGB: a price is needed",
		"pairs: [{from: a, to: a, perGB: 1}]":  "pairs[0].to: within zone a nothing costs",
		"pairs: [{from: a, to: b, perGB: 1}]":  "pairs: b to a is missing, and there is no perGB for it",
		"pairs: [{from: a, to: b, perGB: -2}]": "pairs[0].perGB: -2 is negative",
		"pairs: [{from: a, to: b, perGB: 1}, {from: a, to: b, perGB: 1}]": "pairs[1].to: a to b is there twice",
		"pairs: [{from: a, to: b, perGB: 1, currency: EUR}]":              "currency",
	} {
		_, err := prices.Read([]byte(text), "book")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "price book book: ") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestBuiltIn(t *testing.T) {
	for name, want := range map[string]float64{"aws": 0.02, "gcp": 0.01, "azure": 0} {
		if p, ok := route.Book(name); !ok || p.Of("a", "b") != want || p.Name != name || route.CheckPrices(p) != nil {
			t.Errorf("%+v", p)
		}
	}
	if len(route.Books()) != 3 {
		t.Error(route.Books())
	}
	if _, ok := route.Book("moon"); ok {
		t.Error("no such book")
	}
}

// Whatever a book says, it is refused, or every price in it is one.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"perGB: 0.02", "pairs: [{from: a, to: b, perGB: 1}, {from: b, to: a, perGB: 2}]", "perGB: .inf", "{", "pairs: {a: b}", "perGB: 1e400"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := prices.Read(text, "book")
		if err != nil {
			return
		}
		zones := []string{"", "a", "b"}
		for pair := range p.Pairs {
			zones = append(zones, pair.From, pair.To)
		}
		for _, from := range zones[:min(len(zones), 50)] {
			for _, to := range zones[:min(len(zones), 50)] {
				if v := p.Of(from, to); math.IsNaN(v) || v < 0 || v > route.MaxPerGB {
					t.Fatalf("%s to %s: %v", from, to, v)
				}
			}
		}
	})
}
