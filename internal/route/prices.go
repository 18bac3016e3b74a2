package route

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Book returns the price book of a cloud, for traffic between zones of one region; see Books.
func Book(name string) (model.Prices, bool) {
	switch name {
	case "aws": // 0.01 USD per GB for who sends and 0.01 for who receives
		return model.Prices{Name: name, PerGB: 0.02, Receiver: 0.5}, true
	case "gcp": // 0.01 USD per GB for who sends
		return model.Prices{Name: name, PerGB: 0.01}, true
	case "azure": // free
		return model.Prices{Name: name}, true
	}
	return model.Prices{}, false
}

// Books returns the names of the price books that are built in.
func Books() []string { return []string{"aws", "azure", "gcp"} }

// CheckPrices tells what is wrong with a price book, naming the field.
func CheckPrices(p model.Prices) error {
	if err := CheckPrice(p.PerGB); err != nil {
		return fmt.Errorf("perGB: %w", err)
	}
	if err := CheckReceiver(p.Receiver); err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	pairs := slices.SortedFunc(maps.Keys(p.Pairs), func(a, b model.ZonePair) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	for _, pair := range pairs {
		if err := CheckPrice(p.Pairs[pair]); err != nil {
			return fmt.Errorf("pair %s to %s: perGB: %w", pair.From, pair.To, err)
		}
	}
	return nil
}

// CheckPrice tells what is wrong with a price in USD per GB.
func CheckPrice(v float64) error {
	if err := checkAmount(v); err != nil {
		return err
	}
	if v > MaxPerGB {
		return fmt.Errorf("%g USD is more than %d", v, MaxPerGB)
	}
	return nil
}

// CheckReceiver tells what is wrong with the part of a price that who receives pays.
func CheckReceiver(v float64) error {
	if err := checkAmount(v); err != nil {
		return err
	}
	if v > 1 {
		return fmt.Errorf("%g is more than 1, the whole price", v)
	}
	return nil
}
