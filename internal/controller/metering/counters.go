package metering

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// counters is what went since this replica leads, for Prometheus.
type counters struct {
	began    time.Time
	zones    map[model.ZonePair]uint64
	services map[past.Key]*served // nil unless asked for
	usd      float64
}

// served is what went between two zones for a Service, or for none.
type served struct {
	began, changed time.Time
	model.FlowCount
}

const (
	// heldBack is for how long a new series is told as 0. Who reads it from time to time takes the first value that he
	// sees for what was there before, and it would be in no sum: all read a 0 first.
	heldBack = 2 * time.Minute
	// idle is after how long without a change a series is forgotten; if it comes back it begins anew.
	idle = 24 * time.Hour
)

func newCounters(perService bool, now time.Time) *counters {
	c := &counters{began: now, zones: map[model.ZonePair]uint64{}}
	if perService {
		c.services = map[past.Key]*served{}
	}
	return c
}

func (c *counters) add(flows []model.Flow, p model.Prices, now time.Time) {
	for i := range flows {
		f := &flows[i]
		client, server := meter.Zone(f.Client), meter.Zone(f.Server)
		if f.RequestBytes > 0 {
			c.zones[model.ZonePair{From: client, To: server}] += f.RequestBytes
		}
		if f.ResponseBytes > 0 {
			c.zones[model.ZonePair{From: server, To: client}] += f.ResponseBytes
		}
		if c.services != nil {
			k := past.KeyOf(&f.FlowKey)
			s := c.services[k]
			if s == nil {
				s = &served{began: now}
				c.services[k] = s
			}
			s.Add(f.FlowCount)
			s.changed = now
		}
		if meter.Crosses(f.FlowKey) {
			c.usd += float64(f.Bytes()) * p.Of(f.Client.Zone, f.Server.Zone) / 1e9
		}
	}
}

// forget drops the series of which nothing came for long.
func (c *counters) forget(now time.Time) {
	maps.DeleteFunc(c.services, func(_ past.Key, s *served) bool { return now.Sub(s.changed) > idle })
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descZones = desc("zonewise_zone_traffic_bytes_total", "Bytes of IP packets from a zone to another, or within one, since this replica leads.",
		"source_zone", "destination_zone")
	descBytes = desc(past.Bytes, "Bytes of IP packets of connections to a Service, or directly to a pod or node (no service), from a zone to another or within one, since this replica leads.",
		past.BytesLabels...)
	descConnections = desc(past.Connections, "Connections opened to a Service, or directly (no service), from the client's zone to the server's, since this replica leads.",
		past.Labels...)
	descCost     = desc("zonewise_cross_zone_cost_usd_total", "Price of all bytes between zones since this replica leads, in USD.")
	descLocality = desc("zonewise_locality_ratio", "Share of the bytes between known zones that stayed in one, in the last minute or two.")

	descNodes     = desc("zonewise_meter_nodes", "Nodes of the cluster, by whether they have reported in the last two minutes.", "reporting")
	descStreams   = desc("zonewise_meter_streams", "Agents that are connected.")
	descWaiting   = desc("zonewise_meter_waiting_batches", "Batches that have come and are not on disk yet.")
	descBatches   = desc("zonewise_meter_batches_total", "Batches of reports: stored, refused since they make no sense, or not stored since the store failed; those come again.", "result")
	descLeft      = desc("zonewise_meter_left_out_bytes_total", "Bytes in reports that another node tells of (twice), that only passed by (passing), or that were kept though another may tell of them (doubtful).", "reason")
	descReports   = desc("zonewise_meter_store_reports_total", "Reports by what became of them: taken, duplicate, or missing by the gap in their numbers.", "result")
	descMoved     = desc("zonewise_meter_store_moved_flows_total", "Flows that came so late that their hour was closed; the next open one has them.")
	descFailures  = desc("zonewise_meter_store_failures_total", "Commits that could not be written.")
	descFailing   = desc("zonewise_meter_store_failing", "1 while what comes in cannot be written.")
	descDamaged   = desc("zonewise_meter_store_damaged_files_total", "Files that were found damaged and put aside.")
	descFiles     = desc("zonewise_meter_store_files", "Files of the store by kind.", "kind")
	descGaps      = desc("zonewise_meter_demand_gaps_total", "Steps of 10 s that are in no demand, since too many nodes did not tell of them in time.")
	descMissed    = desc("zonewise_meter_demand_missed_connections_total", "Connections that were told too late to be in any demand.")
	descFlows     = desc("zonewise_meter_remembered_flows", "Flows of the last minute or two that are in memory.")
	descPrices    = desc("zonewise_meter_prices_stale", "1 while the price book that was given last cannot be read, and the one before is in force.")
	descFollowers = desc("zonewise_meter_followers", "Callers that follow flows.")
)

// Describe is part of prometheus.Collector.
func (m *Meter) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descZones, descBytes, descConnections, descCost, descLocality, descNodes, descStreams, descWaiting, descBatches, descLeft, descReports,
		descMoved, descFailures, descFailing, descDamaged, descFiles, descGaps, descMissed, descFlows, descPrices, descFollowers} {
		out <- d
	}
}

// Collect is part of prometheus.Collector. A replica that does not lead has nothing to tell.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	t := m.term()
	if t == nil {
		return
	}
	began := t.counters.began
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetricWithCreatedTimestamp(d, prometheus.CounterValue, v, began, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	t.traffic(counter, gauge)
	for _, s := range t.services(time.Now()) {
		tell := func(d *prometheus.Desc, v uint64, way string) {
			out <- prometheus.MustNewConstMetricWithCreatedTimestamp(d, prometheus.CounterValue, float64(v), s.began, s.Values(way)...)
		}
		tell(descBytes, s.RequestBytes, past.Request)
		tell(descBytes, s.ResponseBytes, past.Response)
		tell(descConnections, s.Connections, "")
	}
	st := t.server.Stats()
	gauge(descStreams, float64(st.Streams))
	gauge(descWaiting, float64(st.Waiting))
	counter(descBatches, float64(st.Batches-st.Refused), "stored")
	counter(descBatches, float64(st.Refused), "refused")
	counter(descBatches, float64(st.Failed), "failed")
	counter(descLeft, float64(st.Twice), "twice")
	counter(descLeft, float64(st.Passing), "passing")
	counter(descLeft, float64(st.Doubtful), "doubtful")
	kept := t.store.Stats()
	counter(descReports, float64(kept.Reports), "taken")
	counter(descReports, float64(kept.Duplicates), "duplicate")
	counter(descReports, float64(kept.Missing), "missing")
	counter(descMoved, float64(kept.Moved))
	counter(descFailures, float64(kept.Failures))
	counter(descDamaged, float64(kept.Damaged))
	gauge(descFiles, float64(kept.Commits), "commit")
	gauge(descFiles, float64(kept.MinuteRows), "minute")
	gauge(descFiles, float64(kept.HourRows), "hour")
	gauge(descPrices, one(m.Prices.Trouble() != ""))
}

// traffic tells what is under the lock.
func (t *term) traffic(counter, gauge func(*prometheus.Desc, float64, ...string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pair, bytes := range t.counters.zones {
		counter(descZones, float64(bytes), pair.From, pair.To)
	}
	counter(descCost, t.counters.usd)
	if share, ok := t.recent.locality(); ok {
		gauge(descLocality, share)
	}
	silent := len(t.fleet.silent(t.fleet.now))
	gauge(descNodes, float64(len(t.fleet.nodes)-silent), "yes")
	gauge(descNodes, float64(silent), "no")
	counter(descGaps, float64(t.tally.gaps))
	counter(descMissed, float64(t.tally.missed))
	gauge(descFlows, float64(t.recent.rows))
	gauge(descFollowers, float64(len(t.followers)))
	gauge(descFailing, one(t.failing != nil))
}

// told is a series as it is told now.
type told struct {
	past.Key
	served
}

func (t *term) services(now time.Time) []told {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]told, 0, len(t.counters.services))
	for k, s := range t.counters.services {
		one := told{k, *s}
		if now.Sub(s.began) < heldBack {
			one.FlowCount = model.FlowCount{}
		}
		out = append(out, one)
	}
	return out
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
