package stream

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// An agent reports at once when it begins, and then no more often than the controller asks: what is put in
// meanwhile goes together.
func TestReportsKeepThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient(nil, ClientOptions{Node: "a1"})
		if err != nil {
			t.Fatal(err)
		}
		put := func() {
			if err := c.Put(time.Now(), []meter.Observed{{Flow: model.Flow{FlowCount: model.FlowCount{Connections: 1}}, Observer: meter.AtClient}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		last := uint64(0)
		sends := func(connections uint64) time.Duration {
			t.Helper()
			b, wait, err := c.ready(last)
			if err != nil || (b.Batch != nil) != (connections > 0) {
				t.Fatalf("%v, error %v; want %d connections", b.Batch, err, connections)
			}
			if b.Batch == nil {
				return wait
			}
			if n := b.Flows[0].Connections; n != connections {
				t.Fatalf("%d connections, want %d", n, connections)
			}
			last = b.Sequence
			return 0
		}
		c.heard(&FromController{IntervalSeconds: 60})
		put()
		sends(1)
		for range 5 {
			<-time.After(10 * time.Second)
			put()
		}
		if wait := sends(0); wait != 10*time.Second {
			t.Errorf("to wait for %v", wait)
		}
		<-time.After(10 * time.Second)
		sends(5)
		put()
		if wait := sends(0); wait != time.Minute {
			t.Errorf("to wait for %v", wait)
		}
		c.heard(&FromController{Applied: last, IntervalSeconds: 10}) // from now on
		if wait := sends(0); wait != 10*time.Second {
			t.Errorf("to wait for %v", wait)
		}
	})
}
