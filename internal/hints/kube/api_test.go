package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

var quiet = slog.New(slog.DiscardHandler)

var (
	sliceKind     = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	configuration = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
)

// api is an API server that asks a webhook about slices, as far as it is registered: client-go's
// fake, with versions and admission, which the fake lacks.
type api struct {
	*fake.Clientset
	handler http.Handler
	refuse  error // of every write that was hinted
	others  error // of every update, by somebody else's admission

	mu      sync.Mutex
	version int
	writes  int // of slices, that changed something
	asked   int
}

func newAPI(h http.Handler, objects ...runtime.Object) *api {
	a := &api{Clientset: fake.NewClientset(), handler: h}
	for _, o := range objects {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			a.version++
			s.ResourceVersion = strconv.Itoa(a.version)
		}
		if err := a.Tracker().Add(o); err != nil {
			panic(err)
		}
	}
	a.PrependReactor("create", "endpointslices", a.create)
	a.PrependReactor("patch", "endpointslices", a.patch)
	return a
}

func (a *api) create(action k8stesting.Action) (bool, runtime.Object, error) {
	c := action.(k8stesting.CreateActionImpl)
	s, err := a.admit(c.Object.(*discoveryv1.EndpointSlice), "CREATE", len(c.CreateOptions.DryRun) > 0)
	if err != nil || len(c.CreateOptions.DryRun) > 0 {
		return true, s, err
	}
	a.bump(s)
	return true, s, a.Tracker().Create(sliceKind, s, s.Namespace)
}

func (a *api) patch(action k8stesting.Action) (bool, runtime.Object, error) {
	p := action.(k8stesting.PatchActionImpl)
	o, err := a.Tracker().Get(sliceKind, p.Namespace, p.Name)
	if err != nil {
		return true, nil, err
	}
	old := o.(*discoveryv1.EndpointSlice)
	text, _ := json.Marshal(old)
	if p.PatchType == types.JSONPatchType {
		var steps jsonpatch.Patch
		if steps, err = jsonpatch.DecodePatch(p.Patch); err == nil {
			text, err = steps.Apply(text)
		}
	} else {
		text, err = jsonpatch.MergePatch(text, p.Patch)
	}
	if err != nil {
		return true, nil, apierrors.NewBadRequest(err.Error())
	}
	s := &discoveryv1.EndpointSlice{}
	if err := json.Unmarshal(text, s); err != nil {
		return true, nil, err
	}
	if s.ResourceVersion != old.ResourceVersion {
		return true, nil, apierrors.NewConflict(sliceKind.GroupResource(), p.Name, errors.New("it has become another"))
	}
	dry := len(p.PatchOptions.DryRun) > 0
	if s, err = a.admit(s, "UPDATE", dry); err != nil || dry {
		return true, s, err
	}
	before, _ := json.Marshal(old)
	after, _ := json.Marshal(s)
	if bytes.Equal(before, after) {
		return true, s, nil
	}
	a.bump(s)
	return true, s, a.Tracker().Update(sliceKind, s, s.Namespace)
}

func (a *api) bump(s *discoveryv1.EndpointSlice) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.writes++
	s.ResourceVersion = strconv.Itoa(a.version)
}

// admit asks the webhook, if it is registered for the slice.
func (a *api) admit(s *discoveryv1.EndpointSlice, operation admissionv1.Operation, dry bool) (*discoveryv1.EndpointSlice, error) {
	if operation == admissionv1.Update && a.others != nil {
		return nil, a.others
	}
	o, err := a.Tracker().Get(configuration, "", ConfigurationName)
	if err != nil {
		return s, nil
	}
	text, _ := json.Marshal(o)
	if !bytes.Contains(text, []byte(strconv.Quote(s.Labels[discoveryv1.LabelManagedBy]))) {
		return s, nil
	}
	a.mu.Lock()
	a.asked++
	a.mu.Unlock()
	body := reviewOf(s, operation)
	if dry {
		body = bytes.Replace(body, []byte(`"uid":"the-uid"`), []byte(`"uid":"the-uid","dryRun":true`), 1)
	}
	out, err := send(a.handler, body)
	if err != nil {
		return s, nil // failurePolicy: Ignore
	}
	if len(out) > 0 && a.refuse != nil {
		return nil, a.refuse
	}
	return apply(s, out)
}

// ask returns the patch that the webhook answers with.
func ask(h http.Handler, s *discoveryv1.EndpointSlice, operation admissionv1.Operation) ([]byte, error) {
	return send(h, reviewOf(s, operation))
}

func send(h http.Handler, body []byte) ([]byte, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body)))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		return nil, errors.New("no answer: " + w.Body.String())
	}
	if !answer.Response.Allowed || answer.Response.UID != "the-uid" {
		return nil, errors.New("not allowed")
	}
	return answer.Response.Patch, nil
}

func reviewOf(s *discoveryv1.EndpointSlice, operation admissionv1.Operation) []byte {
	s = s.DeepCopy()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}
	object, _ := json.Marshal(s)
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "the-uid", Operation: operation, Namespace: s.Namespace, Name: s.Name,
			Resource: metav1.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
			Object:   runtime.RawExtension{Raw: object},
		},
	}
	if operation == admissionv1.Update {
		review.Request.OldObject = runtime.RawExtension{Raw: object}
	}
	out, _ := json.Marshal(review)
	return out
}

func apply(s *discoveryv1.EndpointSlice, patch []byte) (*discoveryv1.EndpointSlice, error) {
	if len(patch) == 0 {
		return s, nil
	}
	steps, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	text, _ := json.Marshal(s)
	if text, err = steps.Apply(text); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := &discoveryv1.EndpointSlice{}
	return out, json.Unmarshal(text, out)
}

var web = model.Name{Namespace: "default", Name: "web"}

// stock is a slice as the stock controller writes it: an endpoint for each zone, "-" for none.
func stock(name string, first int, zones ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: name, Labels: map[string]string{
			discoveryv1.LabelManagedBy: managedByStock, discoveryv1.LabelServiceName: web.Name,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for i, z := range zones {
		e := discoveryv1.Endpoint{Addresses: []string{address(first + i).String()}}
		if z != "-" {
			e.Zone = &z
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

// world is a Source: slices as an API has them, and hints by what a test wants of each zone.
type world struct {
	api  *api
	mu   sync.Mutex
	want map[string]hints.Hint // by zone; nil: nothing is wanted
	err  error
}

func (w *world) set(want map[string]hints.Hint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = want
}

func (w *world) Any() (wanted, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.want != nil, w.err == nil
}

func (w *world) Services() []model.Name { return []model.Name{web} }

func (w *world) Slices(svc model.Name) (out []model.Slice) {
	o, err := w.api.Tracker().List(sliceKind, sliceKind.GroupVersion().WithKind("EndpointSlice"), svc.Namespace)
	if err != nil {
		panic(err)
	}
	for i := range o.(*discoveryv1.EndpointSliceList).Items {
		s := &o.(*discoveryv1.EndpointSliceList).Items[i]
		if s.Labels[discoveryv1.LabelServiceName] != svc.Name {
			continue
		}
		read, err := fromAPI(s)
		if err != nil {
			panic(err)
		}
		out = append(out, read.model())
	}
	return out
}

func (w *world) Target(_ model.Name, _ bool, slices []model.Slice) (Target, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want == nil || w.err != nil {
		return Target{}, false, w.err
	}
	t := Target{Set: hints.Set{Of: map[netip.Addr]hints.Hint{}}}
	for _, s := range slices {
		for _, e := range s.Endpoints {
			if h, ok := w.want[e.Zone]; ok {
				t.Set.Of[e.Addr] = h
			}
		}
	}
	return t, true, nil
}

func ownZones(zones ...string) map[string]hints.Hint {
	out := map[string]hints.Hint{}
	for _, z := range zones {
		out[z] = hints.Hint{Zones: []string{z}}
	}
	return out
}

// carried says what a slice carries: "a b,c/n1 -".
func carried(t testing.TB, a *api, name string) string {
	t.Helper()
	o, err := a.Tracker().Get(sliceKind, web.Namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return saysOf(o.(*discoveryv1.EndpointSlice))
}

func saysOf(s *discoveryv1.EndpointSlice) string {
	var out []byte
	for i, e := range s.Endpoints {
		if i > 0 {
			out = append(out, ' ')
		}
		if e.Hints == nil {
			out = append(out, '-')
			continue
		}
		for j, z := range e.Hints.ForZones {
			if j > 0 {
				out = append(out, ',')
			}
			out = append(out, z.Name...)
		}
		for j, n := range e.Hints.ForNodes {
			out = append(out, "/,"[min(j, 1)])
			out = append(out, n.Name...)
		}
	}
	return string(out)
}
