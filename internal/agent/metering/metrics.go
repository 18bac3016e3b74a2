package metering

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/meter"
)

// quiet is the least time between two lines of the log about the same kind of loss.
const quiet = time.Minute

// metrics is what people see of a meter.
type metrics struct {
	mu       sync.Mutex
	keys     int
	capacity int
	lost     map[string]uint64 // bytes, by kind
	events   map[string]uint64 // by kind
	logged   map[string]time.Time
	rounds   uint64
	failures uint64
}

func newMetrics() *metrics {
	return &metrics{lost: map[string]uint64{}, events: map[string]uint64{}, logged: map[string]time.Time{}}
}

func (m *metrics) read(keys, capacity int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys, m.capacity = keys, capacity
	m.rounds++
}

func (m *metrics) fail() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures++
}

const uncounted = "uncounted"

// lostBytes and lostEvents are the kinds of what could not be told.
func lostBytes(l meter.Lost) map[string]uint64 {
	return map[string]uint64{uncounted: l.Uncounted.Bytes, "adopted": l.Adopted, "ambiguous": l.Ambiguous, "unattributed": l.Unattributed}
}

func lostEvents(l meter.Lost) map[string]uint64 {
	return map[string]uint64{"restart": uint64(l.Restarts), "reset": uint64(l.Resets), "clock-step": uint64(l.Steps), "disorder": uint64(l.Disorders)}
}

// lose counts what could not be told, and says so, each kind once in a while.
func (m *metrics) lose(l meter.Lost, log *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add := func(to, more map[string]uint64, what string) {
		for kind, n := range more {
			to[kind] += n
			if now := time.Now(); n > 0 && now.Sub(m.logged[kind]) >= quiet {
				m.logged[kind] = now
				level := slog.LevelWarn
				if kind == uncounted {
					level = slog.LevelDebug // IPv6 finds its neighbours by packets that nobody tracks, all the time
				}
				log.Log(context.Background(), level, "meter: not all could be told", "kind", kind, what, n, "since start", to[kind])
			}
		}
	}
	add(m.lost, lostBytes(l), "bytes")
	add(m.events, lostEvents(l), "times")
}

// Collectors are the meter's metrics, worked out when somebody reads them.
func (m *Meter) Collectors() []prometheus.Collector { return []prometheus.Collector{collector{m}} }

type collector struct{ of *Meter }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("zonewise_meter_"+name, help, labels, nil)
}

var (
	descOn        = desc("on", "1 where the node counts traffic.")
	descKeys      = desc("keys", "Counters of the kernel in use.")
	descCapacity  = desc("keys_capacity", "Counters of the kernel; what comes when all are in use is nobody's.")
	descLost      = desc("lost_bytes_total", "Bytes of which something could not be told: uncounted and adopted are in no flow, ambiguous and unattributed in one with an unknown party.", "kind")
	descEvents    = desc("events_total", "Counters made anew (restart), counters that went back (reset), the clock set (clock-step), readings out of order (disorder).", "kind")
	descReadings  = desc("readings_total", "Times that the kernel's counters were read and handed on.")
	descFailures  = desc("errors_total", "Times that this failed, and was tried again.")
	descStreams   = desc("streams_total", "Streams to the controller that were opened.")
	descSent      = desc("reports_sent_total", "Reports sent, with those sent again.")
	descConfirmed = desc("reports_confirmed", "Number of the last report that the controller has on disk; reports of a journal are numbered from 1.")
	descRefused   = desc("reports_refused_total", "Reports that the controller could not make sense of.")
	descCoarsened = desc("flows_coarsened_total", "Flows that lost their names, for too much waited for a controller.")
	descWaiting   = desc("flows_waiting", "Flows that were not sent yet.")
	descFlying    = desc("reports_unconfirmed", "Reports that were sent and are not confirmed.")
)

// Describe is as prometheus.Collector's.
func (c collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect is as prometheus.Collector's.
func (c collector) Collect(out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, float64(v), labels...)
	}
	on := uint64(0)
	if c.of.Status().On {
		on = 1
	}
	send(descOn, prometheus.GaugeValue, on)
	m := c.of.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	send(descKeys, prometheus.GaugeValue, uint64(m.keys))
	send(descCapacity, prometheus.GaugeValue, uint64(m.capacity))
	for kind := range lostBytes(meter.Lost{}) {
		send(descLost, prometheus.CounterValue, m.lost[kind], kind)
	}
	for kind := range lostEvents(meter.Lost{}) {
		send(descEvents, prometheus.CounterValue, m.events[kind], kind)
	}
	send(descReadings, prometheus.CounterValue, m.rounds)
	send(descFailures, prometheus.CounterValue, m.failures)
	s := c.of.stats()
	send(descStreams, prometheus.CounterValue, s.Streams)
	send(descSent, prometheus.CounterValue, s.Sent)
	send(descConfirmed, prometheus.GaugeValue, s.Applied)
	send(descRefused, prometheus.CounterValue, s.Refused)
	send(descCoarsened, prometheus.CounterValue, s.Coarsened)
	send(descWaiting, prometheus.GaugeValue, uint64(s.Waiting))
	send(descFlying, prometheus.GaugeValue, uint64(s.Flying))
}
