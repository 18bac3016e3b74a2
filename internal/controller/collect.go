package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Leaks are interfaces at the cloud that belong to no node any more: a node that is gone cannot take back what it was
// making, or giving back, when it went. Package vpc/ec2 has them.
type Leaks interface {
	Leaked(context.Context) ([]string, error)
	Delete(ctx context.Context, id string) error
}

// collectEvery is how often leaks are looked for. They cost addresses, not money, and each look is a call.
const collectEvery = 5 * time.Minute

// collector deletes leaked interfaces, of all nodes and in one place: so that it is one call for the whole cluster.
type collector struct {
	open    func(context.Context) (Leaks, error)
	leaks   Leaks
	log     *slog.Logger
	deleted prometheus.Counter
}

func newCollector(open func(context.Context) (Leaks, error), log *slog.Logger) *collector {
	return &collector{open: open, log: log, deleted: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "zonewise_vpc_leaked_interfaces_deleted_total",
		Help: "Elastic interfaces that belonged to no node any more, and were deleted.",
	})}
}

// pass deletes what is leaked now. One that cannot be deleted does not hold up the others.
func (c *collector) pass(ctx context.Context) error {
	if c.leaks == nil {
		leaks, err := c.open(ctx)
		if err != nil {
			return err
		}
		c.leaks = leaks
	}
	leaked, err := c.leaks.Leaked(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range leaked {
		if err := c.leaks.Delete(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		c.deleted.Inc()
		c.log.Info("deleted a leaked interface", "interface", id)
	}
	return errors.Join(errs...)
}
