package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// rereads is the time between two looks at the price books.
const rereads = time.Minute

// prices are the price books, for the planner and the meter alike. Books that cannot be read leave the last good
// ones in force.
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
		return nil, err
	}
	return &prices{get: get, log: log, last: s}, nil
}

// run reads the books each minute, until ctx ends. Read hears each time: one book may also have given way to the
// next.
func (p *prices) run(ctx context.Context, read func()) {
	loop.New(func(context.Context) error {
		p.read()
		read()
		return nil
	}, loop.Options{Resync: rereads}).Run(ctx)
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

// now is the book in force.
func (p *prices) now() model.Prices { return p.Series().At(time.Now()) }

// Series is part of metering.Prices.
func (p *prices) Series() meter.Series {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Trouble is part of metering.Prices.
func (p *prices) Trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return ""
	}
	return fmt.Sprintf("prices: the last good book stays in force: %v", p.err)
}
