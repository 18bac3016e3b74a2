// Package past asks a Prometheus that scrapes the controllers what went where.
//
// What a controller tells are counters that begin with each leader, read now and then. What they grew by is what went;
// what a leader counted after it was read for the last time is not there.
package past

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/transport"

	nouns "github.com/zonewise/zonewise/internal/model"
)

// Options say where a Prometheus is, and what it wants.
type Options struct {
	URL       string
	TokenFile string            // of what is sent as Bearer; read again now and then
	CAFile    string            // of who has signed its certificate; empty: the system's
	Labels    map[string]string // of the series that are this cluster's
}

// Filter is what series must have; what is empty does not matter. A namespace may be the Service's, the client's or the
// server's, a zone any end's.
type Filter struct{ Namespace, Service, Zone string }

const (
	// patience is for how long a question may take in all: callers wait for a minute.
	patience = 50 * time.Second
	// perQuery is for how long Prometheus may think of one query.
	perQuery = 30 * time.Second
	// maxAnswer is how much of an answer is read. More is asked for in parts.
	maxAnswer = 32 << 20
	// atOnce is how many steps are asked for in one query, at first.
	atOnce = 24
)

// Prometheus is one that scrapes the controllers.
type Prometheus struct {
	name   string
	labels map[string]string
	api    v1.API
	turn   chan struct{} // one question at a time: an answer may need 100 MB
}

// Open returns a Prometheus. It need not be there yet.
func Open(o Options) (*Prometheus, error) {
	config := &transport.Config{BearerTokenFile: o.TokenFile}
	config.TLS.CAFile = o.CAFile
	config.TLS.ReloadCAFiles = o.CAFile != ""
	through, err := transport.New(config)
	if err != nil {
		return nil, fmt.Errorf("prometheus %s: %w", o.URL, err)
	}
	return New(o.URL, o.Labels, through)
}

// New returns a Prometheus that is reached through a transport.
func New(address string, labels map[string]string, through http.RoundTripper) (*Prometheus, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("prometheus %q: must be a URL such as http://prometheus.monitoring:9090", u.Redacted())
	}
	for name := range labels {
		if !model.LegacyValidation.IsValidLabelName(name) || slices.Contains(BytesLabels, name) {
			return nil, fmt.Errorf("prometheus: label %q: must be one that the scrape adds, such as cluster", name)
		}
	}
	client, err := api.NewClient(api.Config{Address: address, RoundTripper: limited{through}})
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	return &Prometheus{name: u.Redacted(), labels: labels, api: v1.NewAPI(client), turn: make(chan struct{}, 1)}, nil
}

// limited reads no more of an answer than it should.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxAnswer)
	}
	return answer, err
}

// Error is what is wrong with a Prometheus.
type Error struct {
	Name string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("prometheus %s: %v", e.Name, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Step is the length of steps in which a time is asked for: some readings must lie in each, and they are up to a minute
// apart.
func Step(d time.Duration) time.Duration {
	switch {
	case d <= 6*time.Hour:
		return 5 * time.Minute
	case d <= 24*time.Hour:
		return 15 * time.Minute
	case d <= 14*24*time.Hour:
		return time.Hour
	}
	return 24 * time.Hour
}

// Scan shows what went from one instant to another, step by step, in order of time, and returns since when something is
// known. Steps end with that time, so the first may begin earlier. Notes say what qualifies the figures.
func (p *Prometheus) Scan(ctx context.Context, from, to time.Time, f Filter, visit func(from, to time.Time, flows []nouns.Flow) error) (time.Time, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return from, nil, p.wrong(ctx, ctx.Err())
	}
	step := Step(to.Sub(from))
	to = to.Truncate(time.Second)
	n := int((to.Sub(from) + step - 1) / step)
	s := scan{Prometheus: p, filter: f, step: step, from: to.Add(-time.Duration(n) * step), to: to}
	begin, err := s.known(ctx)
	if err == nil && begin.Before(to) {
		err = s.run(ctx, begin, visit)
	}
	slices.Sort(s.notes)
	return begin, slices.Compact(s.notes), err
}

// scan is one question.
type scan struct {
	*Prometheus
	filter   Filter
	step     time.Duration
	from, to time.Time
	notes    []string
}

// known returns when the first step begins of which there is anything, and notes those of which there is nothing.
func (s *scan) known(ctx context.Context) (time.Time, error) {
	whole := selectors(anything, s.labels, Filter{})[0]
	m, err := s.query(ctx, "count(last_over_time("+whole+"["+model.Duration(s.step).String()+"]))", s.from, s.to)
	if err != nil {
		return s.from, err
	}
	if len(m) == 0 || len(m[0].Values) == 0 {
		s.note("there is nothing of %s in this time: does it scrape the controllers?", whole)
		return s.to, nil
	}
	begin := m[0].Values[0].Timestamp.Time().Add(-s.step)
	if begin.Before(s.from) || begin.After(s.to) || begin.Sub(s.from)%s.step != 0 {
		return s.from, s.wrong(ctx, fmt.Errorf("it answers for %s, which was not asked for", begin.UTC().Format(time.RFC3339)))
	}
	if begin.After(s.from) {
		s.note("nothing is known of the time before %s", begin.UTC().Format(time.RFC3339))
	}
	if all := int(s.to.Sub(begin) / s.step); len(m[0].Values) < all {
		s.note("of %d of %d times of %s nothing is known", all-len(m[0].Values), all, model.Duration(s.step))
	}
	// Where a scrape puts its own labels over ours, Services are not to be found.
	renamed, err := s.query(ctx, "count(last_over_time("+Bytes+`{exported_namespace!=""}[`+model.Duration(s.step).String()+"]))", s.to.Add(-s.step), s.to)
	if err != nil {
		return begin, err
	}
	if len(renamed) > 0 {
		s.note("some series of %s have their labels renamed to exported_namespace, and are left out: set honor_labels (honorLabels) where the controllers are scraped", Bytes)
	}
	return begin, nil
}

// run asks for as many steps at a time as the answers allow.
func (s *scan) run(ctx context.Context, begin time.Time, visit func(from, to time.Time, flows []nouns.Flow) error) error {
	odd := 0
	for at, most := begin, atOnce; at.Before(s.to); {
		n := min(most, int(s.to.Sub(at)/s.step))
		end := at.Add(time.Duration(n) * s.step)
		bytes, connections, err := s.both(ctx, at, end)
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			if n == 1 {
				return s.wrong(ctx, fmt.Errorf("its answer is larger than %d MB; ask for one namespace or Service", maxAnswer>>20))
			}
			most = n / 2
			continue
		}
		if err != nil {
			return err
		}
		flows, o := steps(bytes, connections, at, s.step, n)
		odd += o
		for i := range flows {
			from := at.Add(time.Duration(i) * s.step)
			if err := visit(from, from.Add(s.step), flows[i]); err != nil {
				return err
			}
		}
		at = end
	}
	if odd > 0 {
		s.note("%d of its series or values make no sense, and are left out", odd)
	}
	return nil
}

func (s *scan) both(ctx context.Context, from, to time.Time) (bytes, connections model.Matrix, err error) {
	bytes, err = s.query(ctx, growth(Bytes, BytesLabels, s.labels, s.filter, s.step), from, to)
	if err == nil {
		connections, err = s.query(ctx, growth(Connections, Labels, s.labels, s.filter, s.step), from, to)
	}
	return bytes, connections, err
}

// query asks for the steps from one instant to another.
func (s *scan) query(ctx context.Context, query string, from, to time.Time) (model.Matrix, error) {
	v, warnings, _, err := s.api.QueryRange(ctx, query, v1.Range{Start: from.Add(s.step), End: to, Step: s.step}, v1.WithTimeout(perQuery))
	for _, w := range warnings {
		s.note("%s", w)
	}
	if err != nil {
		return nil, s.wrong(ctx, err)
	}
	switch m := v.(type) {
	case model.Matrix:
		return m, nil
	case nil:
		return nil, s.wrong(ctx, errors.New("it answers with nothing where a matrix was asked for"))
	default:
		return nil, s.wrong(ctx, fmt.Errorf("it answers with a %s where a matrix was asked for", v.Type()))
	}
}

func (s *scan) note(format string, args ...any) {
	s.notes = append(s.notes, s.name+": "+fmt.Sprintf(format, args...))
}

// wrong names what is wrong, as short as it can be said.
func (p *Prometheus) wrong(ctx context.Context, err error) error {
	var told *v1.Error
	var unreached *url.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no answer in %v; ask for a shorter time, one namespace or Service", patience)
	case errors.As(err, &told):
		if detail := strings.TrimSpace(told.Detail); detail != "" && len(detail) < 200 {
			err = fmt.Errorf("%s: %s", told.Msg, detail)
		} else {
			err = errors.New(told.Msg)
		}
	case errors.As(err, &unreached):
		err = unreached.Err
	}
	return &Error{p.name, err}
}
