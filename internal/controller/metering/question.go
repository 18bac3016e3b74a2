package metering

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/model"
)

// question is what somebody asks.
type question struct {
	since, until time.Duration // ages
	by           string
	order        meter.Order
	limit        int
	follow       bool
	filter       filter
}

// filter is what flows have to be like; what is empty does not matter.
type filter struct{ namespace, service, zone, workload, node string }

// ask reads a query; since is what holds if it does not say.
func ask(q url.Values, by string, since time.Duration) (out question, err error) {
	for key := range q {
		if !slices.Contains([]string{"by", "since", "until", "namespace", "service", "zone", "workload", "node", "order", "limit", "follow"}, key) {
			return out, fmt.Errorf("%s: there is no such parameter", key)
		}
	}
	out = question{since: since, by: by, order: meter.ByBytes, filter: filter{namespace: q.Get("namespace"), service: q.Get("service"),
		zone: q.Get("zone"), workload: q.Get("workload"), node: q.Get("node")}}
	if namespace, name, ok := strings.Cut(out.filter.service, "/"); ok {
		out.filter.namespace, out.filter.service = namespace, name
	}
	if v := q.Get("by"); v != "" {
		out.by = v
	}
	if out.since, err = age(q, "since", since); err != nil {
		return out, err
	}
	if out.until, err = age(q, "until", 0); err != nil {
		return out, err
	}
	if out.until >= out.since && out.since > 0 {
		return out, fmt.Errorf("until: %v ago is not after since, %v ago", out.until, out.since)
	}
	if v := q.Get("order"); v != "" {
		out.order = meter.Order(v)
		if !slices.Contains(meter.Orders(), out.order) {
			return out, fmt.Errorf("order: %q is none of %v", v, meter.Orders())
		}
	}
	if v := q.Get("limit"); v != "" {
		if out.limit, err = strconv.Atoi(v); err != nil || out.limit < 0 {
			return out, fmt.Errorf("limit: %q is not a number", v)
		}
	}
	if v := q.Get("follow"); v != "" {
		if out.follow, err = strconv.ParseBool(v); err != nil {
			return out, fmt.Errorf("follow: %q is neither true nor false", v)
		}
	}
	return out, nil
}

// age reads a duration: those of Go, and days and weeks.
func age(q url.Values, key string, fallback time.Duration) (time.Duration, error) {
	v := q.Get(key)
	if v == "" {
		return fallback, nil
	}
	d, err := time.ParseDuration(v)
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(v, unit); ok {
			var n float64
			n, err = strconv.ParseFloat(number, 64)
			d = time.Duration(n * float64(length))
		}
	}
	if err != nil || d < 0 || d > 10*366*24*time.Hour {
		return 0, fmt.Errorf("%s: %q is not a time such as 90s, 24h or 7d", key, v)
	}
	return d, nil
}

// has tells whether a flow is asked for.
func (f filter) has(k *model.FlowKey) bool {
	either := func(want, client, server string) bool { return want == "" || want == client || want == server }
	switch {
	case f.service != "":
		if k.Service.Name != f.service || f.namespace != "" && k.Service.Namespace != f.namespace {
			return false
		}
	case f.namespace != "" && k.Service.Namespace != f.namespace && !either(f.namespace, k.Client.Namespace, k.Server.Namespace):
		return false
	}
	return either(f.zone, k.Client.Zone, k.Server.Zone) && either(f.node, k.Client.Node, k.Server.Node) &&
		(f.workload == "" || isWorkload(f.workload, k.Client) || isWorkload(f.workload, k.Server))
}

// isWorkload takes "deployment/web" and "web".
func isWorkload(want string, p model.Party) bool {
	if p.Workload == want {
		return true
	}
	_, name, ok := strings.Cut(p.Workload, "/")
	return ok && name == want
}

// piece is flows of one time, at its prices.
type piece struct {
	span
	flows  []model.Flow
	tariff meter.Tariff
}

const (
	// kept is for how long minutes are kept, and keptBriefly where somebody else has the past.
	kept        = 24 * time.Hour
	keptBriefly = time.Hour
)

// scan shows all flows that are asked for, bit by bit, and tells what time they are of: that of which something is
// known, whole minutes or hours where it is long ago. Nodes' names matter in detail.
func (t *term) scan(ctx context.Context, q question, detail bool, now time.Time, visit func(piece) error) (view.Interval, []string, error) {
	from, to := now.Add(-q.since), now.Add(-q.until)
	var notes []string
	if q.until == 0 && q.since <= window {
		if slots, begin, ok := t.lately(from, detail); ok {
			return view.Interval{From: begin.UTC(), To: now.UTC()}, nil, t.scanSlots(slots, q.filter, begin, now, visit)
		}
	}
	if t.before(q, detail, from) {
		return t.scanPast(ctx, q, detail, from, to, visit)
	}
	unit, by := time.Minute, store.Minute
	if q.since > kept {
		unit, by = time.Hour, store.Hour
		if q.filter.node != "" {
			return view.Interval{}, nil, fmt.Errorf("node: nodes are kept for %v", kept)
		}
	}
	from = from.Truncate(unit)
	end := to.Add(unit) // with what has just begun
	if q.until > 0 {
		to = to.Truncate(unit)
		end = to
	}
	if oldest, ok := t.store.Oldest(); ok && oldest.After(from) {
		notes = append(notes, fmt.Sprintf("nothing is known of the time before %s", oldest.Format(time.RFC3339)))
		if from = oldest; from.After(to) {
			from = to
		}
	}
	series, tariff, at, times := t.Prices.Series(), meter.Tariff{}, span{}, 0
	flows := make([]model.Flow, 0, 4096)
	err := t.store.Scan(from, end, by, func(begin time.Time, all []model.Flow) error {
		if !begin.Equal(at.from) {
			at = span{begin, begin.Add(unit)}
			if to.After(begin) && to.Before(at.to) { // it is not over
				at.to = to
			}
			tariff, times = series.Tariff(at.from, at.to), times+1
		}
		flows = flows[:0]
		for i := range all {
			if q.filter.has(&all[i].FlowKey) {
				flows = append(flows, all[i])
			}
		}
		return visit(piece{at, flows, tariff})
	})
	// the last unit is not over
	if whole := int(to.Sub(from) / unit); times < whole-1 {
		notes = append(notes, fmt.Sprintf("%d of %d %ss have no flows", whole-times, whole, unitName(unit)))
	}
	return view.Interval{From: from.UTC(), To: to.UTC()}, notes, err
}

// before tells whether somebody else is to be asked: for what is older than what is kept, and for what another leader
// kept, as far as it can be told.
func (t *term) before(q question, detail bool, from time.Time) bool {
	if t.Past == nil || q.since > keptBriefly {
		return t.Past != nil
	}
	oldest, ok := t.store.Oldest()
	return q.untold(detail) == "" && (!ok || oldest.Sub(from) > past.Step(0))
}

// untold names what of a question can only be told of what is in the store; empty if there is nothing.
func (q question) untold(detail bool) string {
	switch {
	case q.filter.node != "":
		return "nodes"
	case q.filter.workload != "" || q.by == "workloads":
		return "workloads"
	case detail:
		return "flows"
	case q.order == meter.ByPackets:
		return "packets"
	}
	return ""
}

// scanPast is scan of what somebody else remembers.
func (t *term) scanPast(ctx context.Context, q question, detail bool, from, to time.Time, visit func(piece) error) (view.Interval, []string, error) {
	if what := q.untold(detail); what != "" {
		return view.Interval{}, nil, fmt.Errorf("%s are kept for %v, with since=1h or less; what is older is in Prometheus, by Services, namespaces and zones", what, keptBriefly)
	}
	series := t.Prices.Series()
	f := past.Filter{Namespace: q.filter.namespace, Service: q.filter.service, Zone: q.filter.zone}
	begin, notes, err := t.Past.Scan(ctx, from, to, f, func(from, to time.Time, flows []model.Flow) error {
		flows = slices.DeleteFunc(flows, func(f model.Flow) bool { return !q.filter.has(&f.FlowKey) })
		return visit(piece{span{from, to}, flows, series.Tariff(from, to)})
	})
	return view.Interval{From: begin.UTC(), To: to.UTC()}, append(notes, "from Prometheus, which has no packets"), err
}

func unitName(unit time.Duration) string {
	if unit == time.Hour {
		return "hour"
	}
	return "minute"
}

// lately returns what is in memory of the time since an instant; false if that is not all.
func (t *term) lately(from time.Time, detail bool) ([]*slot, time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots, begin, ok := t.recent.since(from)
	if !ok || detail && slices.ContainsFunc(slots, func(s *slot) bool { return s.coarse }) {
		return nil, begin, false
	}
	return copies(slots), begin, true
}

func (t *term) scanSlots(slots []*slot, f filter, begin, now time.Time, visit func(piece) error) error {
	tariff := t.Prices.Series().Tariff(begin, now)
	flows := make([]model.Flow, 0, 4096)
	for _, s := range slots {
		end := s.to
		if now.Before(end) {
			end = now
		}
		for part := range slices.Chunk(s.rows, cap(flows)) {
			flows = flows[:0]
			for _, r := range part {
				if one := s.flow(r); f.has(&one.FlowKey) {
					flows = append(flows, one)
				}
			}
			if err := visit(piece{span{s.from, end}, flows, tariff}); err != nil {
				return err
			}
		}
	}
	return nil
}

// notes says what qualifies the figures.
func (t *term) notes(now time.Time) []string {
	missing := t.store.Stats().Missing // not under our lock: the store speaks of damage under its own
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	if silent := t.fleet.silent(now); len(silent) > 0 {
		slices.Sort(silent)
		named := strings.Join(silent[:min(len(silent), 5)], ", ")
		if len(silent) > 5 {
			named += ", …"
		}
		out = append(out, fmt.Sprintf("%d of %d nodes do not report: %s", len(silent), len(t.fleet.nodes), named))
	}
	if t.failing != nil {
		out = append(out, fmt.Sprintf("what comes in cannot be stored, and waits on the nodes: %v", t.failing))
	}
	if missing > 0 {
		out = append(out, fmt.Sprintf("%d reports never came", missing))
	}
	for _, trouble := range t.troubles {
		out = append(out, "a damaged file, without which the figures are: "+trouble)
	}
	if trouble := t.Prices.Trouble(); trouble != "" {
		out = append(out, trouble)
	}
	return out
}

// labels are the namespaces' labels, asked for now and then.
type labels struct {
	client kubernetes.Interface

	mu   sync.Mutex
	at   time.Time
	last map[string]map[string]string
}

const labelsAgain = 30 * time.Second

// of returns what namespaces say under a key.
func (l *labels) of(ctx context.Context, key string, now time.Time) (func(namespace string) string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil || now.Sub(l.at) > labelsAgain {
		list, err := l.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("namespaces: %w", err)
		}
		last := map[string]map[string]string{}
		for i := range list.Items {
			last[list.Items[i].Name] = list.Items[i].Labels
		}
		l.at, l.last = now, last
	}
	all := l.last
	return func(namespace string) string { return all[namespace][key] }, nil
}
