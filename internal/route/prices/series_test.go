package prices_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/route/prices"
)

func TestReadSeries(t *testing.T) {
	s, err := prices.ReadSeries([]byte(`
books:
- {from: 2026-06-01, perGB: 0.015, receiver: 1}
- {use: aws}
- {from: "2026-07-01T09:00:00+09:00", perGB: 0.01, pairs: [{from: a, to: b, perGB: 0}]}
`), "ours.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]float64{"1999-01-01T00:00:00Z": 0.02, "2026-05-31T23:59:59Z": 0.02, "2026-06-01T00:00:00Z": 0.015, "2026-06-30T23:59:59Z": 0.015, "2026-07-01T00:00:00Z": 0.01} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.At(when).Of("x", "y"); got != want {
			t.Errorf("%s: %g, want %g", at, got, want)
		}
	}
	if s[0].Prices.Name != "aws" || s[0].Prices.Receiver != 0.5 || s[1].Prices.Receiver != 1 || s[2].Prices.Name != "ours.yaml" || s[2].Prices.Of("a", "b") != 0 {
		t.Errorf("%+v", s)
	}
	s, err = prices.ReadSeries([]byte("perGB: 0.5\nreceiver: 0.25\n"), "x")
	if err != nil || len(s) != 1 || s[0].Prices.PerGB != 0.5 || s[0].Prices.Receiver != 0.25 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestBadSeries(t *testing.T) {
	for text, want := range map[string]string{
		"books: []":                                                 "books: one is needed",
		"books: {}":                                                 "books",
		"perGB: -1":                                                 "perGB: -1 is negative",
		"{books: [{perGB: 1}], perGB: 1}":                           "perGB",
		"books: [{perGB: 1}, {perGB: 2}]":                           "both from the beginning",
		"books: [{from: 2026-01-01, perGB: 1}]":                     "from 2026-01-01T00:00:00Z: no book holds before it",
		"books: [{perGB: 1}, {from: soon, perGB: 1}]":               "books[1].from: \"soon\" is neither",
		"books: [{perGB: 1}, {from: 2026-02-30, perGB: 1}]":         "books[1].from: \"2026-02-30\" is neither",
		"books: [{perGB: 1}, {from: 2026-01-01}]":                   "books[1].perGB: a price is needed, or pairs",
		"books: [{perGB: 1}, {from: 2026-01-01, perGB: -3}]":        "books[1].perGB: -3 is negative",
		"books: [{use: moon}]":                                      "books[0].use: \"moon\" is none of [aws azure gcp]",
		"books: [{use: aws, perGB: 1}]":                             "books[0].use: aws has prices of its own",
		"books: [{perGB: 1, receiver: 1.5}]":                        "books[0].receiver: 1.5 is more than 1",
		"books: [{perGB: 1, receiver: -1}]":                         "books[0].receiver: -1 is negative",
		"books: [{perGB: 1, currency: EUR}]":                        "currency",
		"books: [{pairs: [{from: a, to: b, perGB: 1}]}]":            "b to a is missing",
		"books: [{perGB: 1, pairs: [{from: a, to: b, perGB: -1}]}]": "books[0].pairs[0].perGB: -1 is negative",
	} {
		_, err := prices.ReadSeries([]byte(text), "book")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Whatever a file says, it is refused, or there is a price at any time.
func FuzzReadSeries(f *testing.F) {
	for _, s := range []string{"perGB: 0.02", "books: [{use: aws}, {from: 2026-06-01, perGB: 0.015}]", "books: [{perGB: .inf}]", "books: {a: b}", "books: [[]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := prices.ReadSeries(text, "book")
		if err != nil {
			return
		}
		if len(s) == 0 || !s[0].From.IsZero() {
			t.Fatalf("%+v: no price at first", s)
		}
		for _, e := range s {
			if p := s.At(e.From); !(p.Of("a", "b") >= 0) || !(p.Receiver >= 0 && p.Receiver <= 1) {
				t.Fatalf("%+v", p)
			}
		}
	})
}
