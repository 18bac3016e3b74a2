package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// planned is a planner that is a function.
type planned func(model.Slice) (map[netip.Addr]hints.Hint, error)

func (p planned) Hints(_ model.Name, _ bool, s model.Slice) (map[netip.Addr]hints.Hint, error) {
	return p(s)
}

// zoneOf hints every endpoint for its own zone; those without one get no hint.
func zoneOf(s model.Slice) (map[netip.Addr]hints.Hint, error) {
	out := map[netip.Addr]hints.Hint{}
	for _, e := range s.Endpoints {
		if e.Zone != "" {
			out[e.Addr] = hints.Hint{Zones: []string{e.Zone}}
		}
	}
	return out, nil
}

func TestHandlerHints(t *testing.T) {
	h := NewHandler(planned(zoneOf), quiet)
	for _, c := range []struct {
		what   string
		change func(*discoveryv1.EndpointSlice)
		want   string
		result string
	}{
		{"as the stock controller writes it", func(*discoveryv1.EndpointSlice) {}, "a b -", hinted},
		{"with annotations of others", func(s *discoveryv1.EndpointSlice) { s.Annotations = map[string]string{"x": "y"} }, "a b -", hinted},
		{"with hints of others", func(s *discoveryv1.EndpointSlice) {
			for i := range s.Endpoints {
				s.Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "q"}}}
			}
		}, "a b -", hinted},
		{"with names for addresses", func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, "- - -", left},
		{"headless", func(s *discoveryv1.EndpointSlice) { s.Labels["service.kubernetes.io/headless"] = "" }, "- - -", left},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update} {
				s := stock("web-1", 1, "a", "b", "-")
				c.change(s)
				before := testutil.ToFloat64(h.reviews.WithLabelValues(c.result))
				patch, err := ask(h, s, operation)
				if err != nil {
					t.Fatal(err)
				}
				after, err := apply(s, patch)
				if err != nil {
					t.Fatal(err)
				}
				if got := saysOf(after); got != c.want {
					t.Errorf("%s: %q, want %q", operation, got, c.want)
				}
				if n := testutil.ToFloat64(h.reviews.WithLabelValues(c.result)) - before; n != 1 {
					t.Errorf("%s: counted %v times as %s", operation, n, c.result)
				}
				if after.Annotations["x"] != s.Annotations["x"] {
					t.Error("annotations of others are gone")
				}
				if again, err := ask(h, after, operation); err != nil || len(again) != 0 {
					t.Errorf("%s: patched again: %s, error %v", operation, again, err)
				}
				read, err := fromAPI(after)
				if err != nil || Ours(read.model()) != (c.result == hinted) {
					t.Errorf("%s: ours is %v, error %v", operation, Ours(read.model()), err)
				}
			}
		})
	}
}

// A hint that the API server would refuse must never reach it: a refused patch is a refused write.
func TestHandlerSendsNothingThatWouldBeRefused(t *testing.T) {
	nine := strings.Fields("a b c d e f g h i")
	for what, bad := range map[string]hints.Hint{
		"nine zones":      {Zones: nine},
		"nine nodes":      {Zones: []string{"a"}, Nodes: nine},
		"a zone twice":    {Zones: []string{"a", "b", "a"}},
		"a node twice":    {Nodes: []string{"a", "a"}},
		"no zone name":    {Zones: []string{"zone a"}},
		"an empty zone":   {Zones: []string{""}},
		"a long zone":     {Zones: []string{strings.Repeat("z", 64)}},
		"no node name":    {Nodes: []string{"Node"}},
		"a very long one": {Nodes: []string{strings.Repeat("n", 254)}},
	} {
		h := NewHandler(planned(func(s model.Slice) (map[netip.Addr]hints.Hint, error) {
			return map[netip.Addr]hints.Hint{s.Endpoints[0].Addr: bad}, nil
		}), quiet)
		patch, err := ask(h, stock("web-1", 1, "a"), admissionv1.Update)
		if err != nil || len(patch) != 0 {
			t.Errorf("%s: patch %s, error %v", what, patch, err)
		}
		if n := testutil.ToFloat64(h.reviews.WithLabelValues(failed)); n != 1 {
			t.Errorf("%s: counted %v times", what, n)
		}
	}
}

func TestHandlerAllowsWhateverGoesWrong(t *testing.T) {
	for what, c := range map[string]struct {
		planner planned
		result  string
	}{
		"an error":    {func(model.Slice) (map[netip.Addr]hints.Hint, error) { return nil, errors.New("no tables") }, failed},
		"a panic":     {func(model.Slice) (map[netip.Addr]hints.Hint, error) { panic("no tables") }, broken},
		"no interest": {func(model.Slice) (map[netip.Addr]hints.Hint, error) { return nil, nil }, left},
	} {
		h := NewHandler(c.planner, quiet)
		patch, err := ask(h, stock("web-1", 1, "a"), admissionv1.Update)
		if err != nil || len(patch) != 0 {
			t.Errorf("%s: patch %s, error %v", what, patch, err)
		}
		if n := testutil.ToFloat64(h.reviews.WithLabelValues(c.result)); n != 1 {
			t.Errorf("%s: counted %v times as %s", what, n, c.result)
		}
	}
}

func TestHandlerDoesNotWaitForAPlanner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		h := NewHandler(planned(func(model.Slice) (map[netip.Addr]hints.Hint, error) { <-never; return nil, nil }), quiet)
		for range cap(h.room) + 10 { // more than may wait: the last are not even asked
			if patch, err := ask(h, stock("web-1", 1, "a"), admissionv1.Update); err != nil || len(patch) != 0 {
				t.Fatalf("patch %s, error %v", patch, err)
			}
		}
		if n := testutil.ToFloat64(h.reviews.WithLabelValues(late)); n != float64(cap(h.room)+10) {
			t.Errorf("counted %v times", n)
		}
		if took := h.Slowest(); took < lag || took > 2*lag {
			t.Errorf("the slowest took %v", took)
		}
		if h.Slowest() != 0 {
			t.Error("told twice")
		}
		close(never)
		synctest.Wait()
		if len(h.room) != 0 {
			t.Errorf("%d still under way", len(h.room))
		}
	})
}

func TestHandlerRefusesWhatIsNoReview(t *testing.T) {
	h := NewHandler(planned(zoneOf), quiet)
	for what, c := range map[string]struct {
		body string
		code int
	}{
		"nothing":         {"", 400},
		"no JSON":         {"{", 400},
		"another version": {`{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u"}}`, 400},
		"no request":      {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400},
		"no uid":          {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`, 400},
		"no object":       {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u"}}`, 200},
		"too much":        {strings.Repeat(" ", maxBody+1), 413},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, strings.NewReader(c.body)))
		if w.Code != c.code {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
}

// Whatever comes in, what goes out is a review that allows the write, and a patch that applies.
func FuzzHandler(f *testing.F) {
	s := stock("web-1", 1, "a", "-", "b")
	f.Add(reviewOf(s, admissionv1.Create))
	s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
	s.Annotations = map[string]string{Annotation: "1", "b": "c"}
	f.Add(reviewOf(s, admissionv1.Update))
	f.Add(reviewOf(probeSlice("default", managedByProbe, "word"), admissionv1.Create))
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","resource":{"group":"discovery.k8s.io","version":"v1","resource":"endpointslices"},"object":{"metadata":{"namespace":"d","annotations":null},"addressType":"IPv4","endpoints":[null,{"addresses":["10.0.0.1"],"zone":"a","hints":null}]}}}`))
	h := NewHandler(planned(zoneOf), quiet)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body)))
		if w.Code != http.StatusOK {
			return
		}
		var answer admissionv1.AdmissionReview
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || !answer.Response.Allowed {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if len(answer.Response.Patch) == 0 {
			return
		}
		var asked struct {
			Request struct{ Object json.RawMessage }
		}
		if err := json.Unmarshal(body, &asked); err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(body), `"object"`) > 1 || strings.Count(strings.ToLower(string(body)), `"metadata"`) > 1 {
			return // no API server says a thing twice, or in other letters
		}
		patch, err := jsonpatch.DecodePatch(answer.Response.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := patch.Apply(asked.Request.Object); err != nil && exact(asked.Request.Object) {
			t.Fatalf("patch %s of %s: %v", answer.Response.Patch, asked.Request.Object, err)
		}
	})
}

// exact tells whether a slice's fields are spelt as the API spells them, each once.
func exact(object []byte) bool {
	for _, field := range []string{"metadata", "endpoints", "annotations", "hints"} {
		if strings.Count(strings.ToLower(string(object)), field) != strings.Count(string(object), `"`+field+`"`) {
			return false
		}
	}
	var s map[string]json.RawMessage
	return json.Unmarshal(object, &s) == nil && strings.Count(string(object), `"endpoints"`) == 1 && strings.Count(string(object), `"annotations"`) <= 1
}

func BenchmarkHandler(b *testing.B) {
	zones := make([]string, 100)
	for i := range zones {
		zones[i] = fmt.Sprintf("ap-northeast-2%c", 'a'+i%3)
	}
	s := stock("web-1", 1, zones...)
	node := "ip-192-168-1-10.ap-northeast-2.compute.internal"
	yes := true
	for i := range s.Endpoints {
		s.Endpoints[i].NodeName = &node
		s.Endpoints[i].Conditions = discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}
	}
	body := reviewOf(s, admissionv1.Update)
	h := NewHandler(planned(zoneOf), quiet)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body)))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// A step that takes all hints off a slice takes the mark off, too.
func TestHandlerTakesOff(t *testing.T) {
	s := stock("web-1", 1, "-")
	s.Annotations = map[string]string{Annotation: "1", "x": "y"}
	s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
	patch, err := ask(NewHandler(planned(zoneOf), quiet), s, admissionv1.Update)
	if err != nil {
		t.Fatal(err)
	}
	after, err := apply(s, patch)
	if err != nil {
		t.Fatal(err)
	}
	if _, marked := after.Annotations[Annotation]; marked || saysOf(after) != "-" || after.Annotations["x"] != "y" {
		t.Errorf("%s, annotations %v", saysOf(after), after.Annotations)
	}
}
