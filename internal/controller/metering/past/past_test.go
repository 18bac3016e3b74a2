package past

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	nouns "github.com/zonewise/zonewise/internal/model"
)

// answers is a Prometheus as a transport sees it.
type answers func(form url.Values) (status int, body string)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	status, text := a(r.Form)
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}, Request: r}, nil
}

func data(matrix string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":` + matrix + `}}`
}

// steady answers that each step of what is asked for had 1000 bytes and one connection to web; extra is put into each
// answer about bytes.
func steady(form url.Values, extra string) string {
	number := func(key string) int64 {
		n, _ := strconv.ParseFloat(form.Get(key), 64)
		return int64(n)
	}
	var values []string
	value := "1"
	query := form.Get("query")
	if strings.Contains(query, Bytes) {
		value = "1000"
	}
	for at := number("start"); at <= number("end"); at += number("step") {
		values = append(values, fmt.Sprintf(`[%d,"%s"]`, at, value))
	}
	switch {
	case strings.Contains(query, "exported_namespace"):
		return data("[]")
	case strings.Contains(query, anything):
		return data(`[{"metric":{},"values":[` + strings.Join(values, ",") + `]}]`)
	}
	labels := `"namespace":"shop","service":"web","client_namespace":"front","via":"ClusterIP","family":"IPv4","source_zone":"a","destination_zone":"b"`
	if value == "1000" {
		labels += `,"direction":"request"` + extra
	}
	return data(`[{"metric":{` + labels + `},"values":[` + strings.Join(values, ",") + `]}]`)
}

func prometheus(t testing.TB, a http.RoundTripper) *Prometheus {
	t.Helper()
	p, err := New("http://prometheus.monitoring:9090/base", nil, a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sum scans a day.
func sum(t testing.TB, p *Prometheus, d time.Duration) (total nouns.FlowCount, visits int, begin time.Time, notes []string, err error) {
	last := time.Time{}
	begin, notes, err = p.Scan(t.Context(), noon.Add(-d), noon, Filter{}, func(from, to time.Time, flows []nouns.Flow) error {
		if !last.IsZero() && !from.Equal(last) || !to.After(from) {
			t.Errorf("%v to %v comes after %v", from, to, last)
		}
		last = to
		visits++
		for _, f := range flows {
			total.Add(f.FlowCount)
		}
		return nil
	})
	return total, visits, begin, notes, err
}

func TestScan(t *testing.T) {
	queries := 0
	p := prometheus(t, answers(func(form url.Values) (int, string) {
		queries++
		return 200, steady(form, "")
	}))
	total, visits, begin, notes, err := sum(t, p, 25*time.Hour)
	if err != nil || total.RequestBytes != 25_000 || total.Connections != 25 || visits != 25 || !begin.Equal(noon.Add(-25*time.Hour)) || len(notes) != 0 || queries != 6 {
		t.Errorf("%+v, %d visits from %v, %q, %d queries, %v", total, visits, begin, notes, queries, err)
	}
	stop := errors.New("enough")
	if _, _, err := p.Scan(t.Context(), noon.Add(-time.Hour), noon, Filter{}, func(time.Time, time.Time, []nouns.Flow) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// An answer that is too large is asked for in parts; where one step is too large, that is said.
func TestLargeAnswers(t *testing.T) {
	padding := strings.Repeat(" ", maxAnswer/3)
	pad := func(n int) string { return strings.Repeat(padding, min(n, 4)) }
	p := prometheus(t, answers(func(form url.Values) (int, string) {
		text := steady(form, "")
		if strings.Contains(form.Get("query"), Bytes) {
			return 200, text + pad(strings.Count(text, `"1000"`))
		}
		return 200, text
	}))
	total, visits, _, _, err := sum(t, p, 25*time.Hour)
	if err != nil || total.RequestBytes != 25_000 || visits != 25 {
		t.Errorf("%+v, %d visits, %v", total, visits, err)
	}
	p = prometheus(t, answers(func(form url.Values) (int, string) {
		if strings.Contains(form.Get("query"), "increase") {
			return 200, steady(form, "") + pad(4)
		}
		return 200, steady(form, "")
	}))
	if _, _, _, _, err := sum(t, p, 25*time.Hour); err == nil || err.Error() != "prometheus http://prometheus.monitoring:9090/base: its answer is larger than 32 MB; ask for one namespace or Service" {
		t.Error(err)
	}
}

// Each trouble has a name, and what can be told is.
func TestTroubles(t *testing.T) {
	for name, c := range map[string]struct {
		answer     func(form url.Values) (int, string)
		err, notes string
	}{
		"not allowed": {func(url.Values) (int, string) { return 401, "who are you?\n" }, "client error: 401: who are you?", ""},
		"too much": {func(url.Values) (int, string) {
			return 422, `{"status":"error","errorType":"execution","error":"query processing would load too many samples"}`
		}, "query processing would load too many samples", ""},
		"a web page": {func(url.Values) (int, string) { return 200, "<html>" }, "invalid character '<' looking for beginning of value", ""},
		"another thing": {func(url.Values) (int, string) {
			return 200, `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`
		}, "it answers with a scalar where a matrix was asked for", ""},
		"no thing": {func(url.Values) (int, string) { return 200, "{}" }, "it answers with nothing where a matrix was asked for", ""},
		"another time": {func(url.Values) (int, string) { return 200, data(`[{"metric":{},"values":[[5,"1"]]}]`) },
			"it answers for 1969-12-31T23:00:05Z, which was not asked for", ""},
		"between steps": {func(url.Values) (int, string) {
			return 200, data(fmt.Sprintf(`[{"metric":{},"values":[[%d,"1"]]}]`, noon.Unix()-1))
		}, "it answers for 2026-03-01T10:59:59Z, which was not asked for", ""},
		"nothing": {func(url.Values) (int, string) { return 200, data(`[]`) }, "",
			"there is nothing of zonewise_zone_traffic_bytes_total in this time: does it scrape the controllers?"},
		"a part": {func(form url.Values) (int, string) {
			return 200, strings.Replace(steady(form, ""), `{"status"`, `{"warnings":["store x is away"],"status"`, 1)
		}, "", "store x is away"},
		"odd": {func(form url.Values) (int, string) { return 200, steady(form, `,"via":"a tunnel"`) }, "", "2 of its series or values make no sense, and are left out"},
		"renamed": {func(form url.Values) (int, string) {
			if strings.Contains(form.Get("query"), "exported_namespace") {
				return 200, data(`[{"metric":{},"values":[[1,"1"]]}]`)
			}
			return 200, steady(form, "")
		}, "", "some series of zonewise_service_zone_traffic_bytes_total have their labels renamed to exported_namespace, and are left out: set honor_labels (honorLabels) where the controllers are scraped"},
		"late": {func(form url.Values) (int, string) {
			if strings.Contains(form.Get("query"), anything) {
				return 200, data(fmt.Sprintf(`[{"metric":{},"values":[[%d,"1"],[%d,"1"]]}]`, noon.Add(-3*time.Hour).Unix(), noon.Unix()))
			}
			return 200, steady(form, "")
		}, "", "nothing is known of the time before 2026-03-01T08:00:00Z\nof 2 of 4 times of 1h nothing is known"},
	} {
		_, _, _, notes, err := sum(t, prometheus(t, answers(c.answer)), 25*time.Hour)
		const who = "http://prometheus.monitoring:9090/base: "
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != "prometheus "+who+c.err) {
			t.Errorf("%s: %v, want %s", name, err, c.err)
		}
		if got := strings.ReplaceAll(strings.Join(notes, "\n"), who, ""); got != c.notes {
			t.Errorf("%s: notes %q, want %q", name, got, c.notes)
		}
	}
}

type through func(*http.Request) (*http.Response, error)

func (f through) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// One that does not answer is given up, and whoever waits for his turn is told, too.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := prometheus(t, through(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		done := make(chan error)
		for range 2 {
			go func() {
				_, _, err := silent.Scan(t.Context(), noon.Add(-time.Hour), noon, Filter{}, nil)
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err == nil || !strings.HasSuffix(err.Error(), "no answer in 50s; ask for a shorter time, one namespace or Service") {
				t.Error(err)
			}
		}
		gone := prometheus(t, through(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }))
		_, _, err := gone.Scan(t.Context(), noon.Add(-time.Hour), noon, Filter{}, nil)
		if what := new(Error); !errors.As(err, &what) || err.Error() != "prometheus http://prometheus.monitoring:9090/base: connection refused" {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := silent.Scan(ctx, noon.Add(-time.Hour), noon, Filter{}, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{URL: "prometheus:9090"}, `prometheus "prometheus:9090": must be a URL such as http://prometheus.monitoring:9090`},
		{Options{URL: "ftp://x"}, "must be a URL such as"},
		{Options{URL: "http://p", Labels: map[string]string{"service": "x"}}, `label "service": must be one that the scrape adds`},
		{Options{URL: "http://p", Labels: map[string]string{`a"`: "x"}}, "must be one that the scrape adds"},
		{Options{URL: "https://p", TokenFile: "/no/such/token"}, "/no/such/token"},
		{Options{URL: "https://p", CAFile: "/no/such/ca"}, "/no/such/ca"},
	} {
		if _, err := Open(c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.options, err)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{URL: "https://p/prefix", TokenFile: token, Labels: map[string]string{"cluster": "prod"}}); err != nil {
		t.Error(err)
	}
}

// Whatever it answers, flows make sense, and nothing breaks.
func FuzzAnswer(f *testing.F) {
	f.Add(200, data(fmt.Sprintf(`[{"metric":{},"values":[[%d,"1"]]}]`, noon.Unix())))
	f.Add(200, data(`[{"metric":{"direction":"request","via":"Direct","family":"IPv6","source_zone":"a","destination_zone":"b"},"histograms":[[1,{}]]}]`))
	f.Add(200, `{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["x"]}`)
	f.Add(204, "")
	f.Add(500, `{"status":"success"}`)
	f.Add(405, "0") // it is asked by GET then
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			status = 200
		}
		whole := prometheus(t, answers(func(url.Values) (int, string) { return status, body }))
		later := prometheus(t, answers(func(form url.Values) (int, string) {
			if strings.Contains(form.Get("query"), "increase") {
				return status, body
			}
			return 200, steady(form, "")
		}))
		for _, p := range []*Prometheus{whole, later} {
			_, _, err := p.Scan(t.Context(), noon.Add(-time.Hour), noon, Filter{}, func(from, to time.Time, flows []nouns.Flow) error {
				for _, f := range flows {
					if f.RequestBytes > 1<<62 || f.FlowKey == (nouns.FlowKey{}) {
						t.Errorf("%+v", f)
					}
				}
				return nil
			})
			if what := new(Error); err != nil && !errors.As(err, &what) {
				t.Error(err)
			}
		}
	})
}
