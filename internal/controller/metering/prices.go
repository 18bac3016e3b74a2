package metering

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/zonewise/zonewise/internal/meter"
)

// prices are the price books, read anew each minute. A book that cannot be read leaves the last good one in force.
type prices struct {
	get func() (meter.Series, error)
	log *slog.Logger

	mu   sync.Mutex
	last meter.Series
	err  error // of the last try
}

func newPrices(get func() (meter.Series, error), log *slog.Logger) (*prices, error) {
	s, err := get()
	if err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	return &prices{get: get, log: log, last: s}, nil
}

func (p *prices) read() {
	s, err := p.get()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if p.err == nil || p.err.Error() != err.Error() {
			p.log.Error("prices: the last good book stays in force", "err", err)
		}
		p.err = err
		return
	}
	p.last, p.err = s, nil
}

func (p *prices) series() meter.Series {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// trouble tells why the books in force are not those that were given last; empty if they are.
func (p *prices) trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return ""
	}
	return fmt.Sprintf("prices: the last good book stays in force: %v", p.err)
}
