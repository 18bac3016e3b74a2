package metering

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// counters is what went since this replica leads, for Prometheus.
type counters struct {
	zones    map[model.ZonePair]uint64
	services map[served]uint64 // nil unless asked for
	usd      float64
}

// served is a Service and what went for it from a zone to another, that way only.
type served struct {
	model.Name
	model.ZonePair
}

func newCounters(perService bool) *counters {
	c := &counters{zones: map[model.ZonePair]uint64{}}
	if perService {
		c.services = map[served]uint64{}
	}
	return c
}

func (c *counters) add(flows []model.Flow, p model.Prices) {
	for i := range flows {
		f := &flows[i]
		client, server := meter.Zone(f.Client), meter.Zone(f.Server)
		there, back := model.ZonePair{From: client, To: server}, model.ZonePair{From: server, To: client}
		for _, way := range []struct {
			model.ZonePair
			bytes uint64
		}{{there, f.RequestBytes}, {back, f.ResponseBytes}} {
			if way.bytes == 0 {
				continue
			}
			c.zones[way.ZonePair] += way.bytes
			if c.services != nil && f.Service != (model.Name{}) {
				c.services[served{f.Service, way.ZonePair}] += way.bytes
			}
		}
		if meter.Crosses(f.FlowKey) {
			c.usd += float64(f.Bytes()) * p.Of(f.Client.Zone, f.Server.Zone) / 1e9
		}
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descZones = desc("zonewise_zone_traffic_bytes_total", "Bytes of IP packets from a zone to another, or within one, since this replica leads.",
		"source_zone", "destination_zone")
	descService = desc("zonewise_service_zone_traffic_bytes_total", "Bytes of IP packets of connections to a Service, from a zone to another or within one, since this replica leads.",
		"namespace", "service", "source_zone", "destination_zone")
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
	for _, d := range []*prometheus.Desc{descZones, descService, descCost, descLocality, descNodes, descStreams, descWaiting, descBatches, descLeft, descReports,
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
	emit := func(kind prometheus.ValueType) func(*prometheus.Desc, float64, ...string) {
		return func(d *prometheus.Desc, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
		}
	}
	counter, gauge := emit(prometheus.CounterValue), emit(prometheus.GaugeValue)
	t.traffic(counter, gauge)
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
	for s, bytes := range t.counters.services {
		counter(descService, float64(bytes), s.Namespace, s.Name.Name, s.From, s.To)
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

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
