package reflect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// saidEvent is one event as an API server writes it.
type saidEvent struct {
	of     watch.EventType
	object runtime.Object
}

// written returns events as they are on the wire, in protobuf or in JSON.
func written(t *testing.T, mediaType string, events ...saidEvent) []byte {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatal(mediaType)
	}
	var out bytes.Buffer
	frames := info.StreamSerializer.Framer.NewFrameWriter(&out)
	for _, e := range events {
		kinds, _, err := scheme.Scheme.ObjectKinds(e.object)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, kinds[0].GroupVersion()), e.object)
		if err != nil {
			t.Fatal(err)
		}
		if err := info.StreamSerializer.Serializer.Encode(&metav1.WatchEvent{Type: string(e.of), Object: runtime.RawExtension{Raw: raw}}, frames); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func numbered(t *testing.T, i int) *corev1.Service {
	return parse[corev1.Service](t, fmt.Sprintf(
		`{metadata: {namespace: a, name: s%04d, resourceVersion: "%d"}, spec: {type: ClusterIP, clusterIPs: [10.0.%d.%d]}}`, i, i+1, i/250, 1+i%250))
}

func bookmark(version, mark string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
	if mark != "" {
		s.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: mark}
	}
	return s
}

// reading returns a stream of these bytes.
func reading(raw []byte, list bool) *rowStream[*corev1.Service, servedOrNot] {
	return newRowStream(io.NopCloser(bytes.NewReader(raw)), newServiceDecoder(), serviceStore(state.New(), time.Now), list)
}

// brought is what a test looks at of an event.
type brought struct {
	Of      watch.EventType
	Version string
	Names   []string // a name that is not ours, or is gone, with a minus
	Ends    bool
}

func decodeAll(t *testing.T, s watch.Decoder) (out []brought, err error) {
	t.Helper()
	for {
		of, object, err := s.Decode()
		if err != nil {
			return out, err
		}
		b := brought{Of: of}
		switch o := object.(type) {
		case *parcel[servedOrNot]:
			b.Version, b.Ends = o.ResourceVersion, o.Annotations[metav1.InitialEventsAnnotationKey] == "true"
			for _, a := range o.rows {
				switch {
				case a.ours:
					b.Names = append(b.Names, a.name.Name)
				case a.name.Name != "":
					b.Names = append(b.Names, "-"+a.name.Name)
				}
			}
		case *corev1.Service:
			b.Version, b.Names = o.ResourceVersion, []string{"object " + o.Name}
		case *metav1.Status:
			b.Names = []string{o.Message}
		}
		out = append(out, b)
	}
}

// A first list comes in parcels, and all after it one by one. What is deleted amid a list is so in its place.
func TestAListComesInParcels(t *testing.T) {
	gone := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s0000", ResourceVersion: "900"}}
	raw := written(t, runtime.ContentTypeProtobuf,
		saidEvent{watch.Added, numbered(t, 0)}, saidEvent{watch.Modified, numbered(t, 1)}, saidEvent{watch.Deleted, gone},
		saidEvent{watch.Bookmark, bookmark("901", "")}, saidEvent{watch.Bookmark, bookmark("902", "")},
		saidEvent{watch.Added, numbered(t, 2)}, saidEvent{watch.Bookmark, bookmark("903", "true")},
		saidEvent{watch.Added, numbered(t, 3)}, saidEvent{watch.Deleted, numbered(t, 3)}, saidEvent{watch.Bookmark, bookmark("904", "")})
	got, err := decodeAll(t, reading(raw, true))
	want := []brought{
		{Of: watch.Added, Version: "900", Names: []string{"s0000", "s0001", "-s0000"}},
		{Of: watch.Bookmark, Version: "901"}, {Of: watch.Bookmark, Version: "902"},
		{Of: watch.Added, Version: "3", Names: []string{"s0002"}},
		{Of: watch.Bookmark, Version: "903", Ends: true},
		{Of: watch.Added, Version: "4", Names: []string{"s0003"}}, {Of: watch.Deleted, Version: "4", Names: []string{"s0003"}},
		{Of: watch.Bookmark, Version: "904"},
	}
	if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, io.EOF) {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestAListLongerThanAParcel(t *testing.T) {
	var said []saidEvent
	for i := range perParcel + 3 {
		said = append(said, saidEvent{watch.Added, numbered(t, i)})
	}
	said = append(said, saidEvent{watch.Bookmark, bookmark("9000", "true")})
	s := reading(written(t, runtime.ContentTypeProtobuf, said...), true)
	var names []string
	for _, want := range []int{perParcel, 3} {
		of, o, err := s.Decode()
		p, ok := o.(*parcel[servedOrNot])
		if err != nil || !ok || of != watch.Added || len(p.rows) != want {
			t.Fatalf("%v %v %T", err, of, o)
		}
		names = append(names, p.Namespace+"/"+p.Name)
	}
	if names[0] == names[1] {
		t.Errorf("two parcels are called %s: client-go would keep the last", names[0])
	}
	tables := state.New(state.Services)
	store := serviceStore(tables, time.Now)
	var list []any
	again := reading(written(t, runtime.ContentTypeProtobuf, said...), true)
	for range 2 {
		_, o, err := again.Decode()
		if err != nil {
			t.Fatal(err)
		}
		lot, err := store.Transformer()(o)
		if err != nil {
			t.Fatal(err)
		}
		list = append([]any{lot}, list...)
	}
	if err := store.Replace(list, "9000"); err != nil {
		t.Fatal(err)
	}
	for i := range perParcel + 3 {
		if _, ok := tables.Snapshot().Service(model.Name{Namespace: "a", Name: fmt.Sprintf("s%04d", i)}); !ok {
			t.Fatalf("service %d is lost", i)
		}
	}
}

// What is not an object of our kind, or not said in protobuf, reaches client-go as from its own decoders.
func TestWatchesThatAreOtherwise(t *testing.T) {
	expired := apierrors.NewResourceExpired("too old").Status()
	expired.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	failed := saidEvent{watch.Error, &expired}
	for name, c := range map[string]struct {
		raw  []byte
		list bool
		want []brought
		err  string
	}{
		"error amid a list": {written(t, runtime.ContentTypeProtobuf, saidEvent{watch.Added, numbered(t, 0)}, failed), true,
			[]brought{{Of: watch.Added, Version: "1", Names: []string{"s0000"}}, {Of: watch.Error, Names: []string{"too old"}}}, "EOF"},
		"error": {written(t, runtime.ContentTypeProtobuf, failed), false, []brought{{Of: watch.Error, Names: []string{"too old"}}}, "EOF"},
		"JSON": {written(t, runtime.ContentTypeJSON, saidEvent{watch.Added, numbered(t, 0)}, saidEvent{watch.Bookmark, bookmark("5", "true")}), true,
			[]brought{{Of: watch.Added, Version: "1", Names: []string{"object s0000"}}, {Of: watch.Bookmark, Version: "5", Names: []string{"object "}}}, "EOF"},
		"nothing":          {nil, true, nil, "EOF"},
		"half a length":    {[]byte{0, 0}, false, nil, "unexpected EOF"},
		"half an event":    {written(t, runtime.ContentTypeProtobuf, saidEvent{watch.Added, numbered(t, 0)})[:30], false, nil, "unexpected EOF"},
		"no event":         {append(binary.BigEndian.AppendUint32(nil, 2), 0xff, 0xff), false, nil, "not a watch event"},
		"too long":         {[]byte{0, 0, 0, 0, 1}, false, nil, "type"},
		"unknown event":    {written(t, runtime.ContentTypeProtobuf, saidEvent{"MOVED", numbered(t, 0)}), false, nil, `type "MOVED"`},
		"no object at all": {append(binary.BigEndian.AppendUint32(nil, 7), "\x0a\x05ADDED"...), false, nil, "'Kind' is missing"},
	} {
		got, err := decodeAll(t, reading(c.raw, c.list))
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %s", name, err, c.err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A message of our kind that our decoder gives up on is decoded all the same.
func TestOddObjects(t *testing.T) {
	odd := numbered(t, 0)
	body, err := odd.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	body = append(body, 0x7d, 1, 2, 3, 4) // field 15, four bytes of fixed length
	if _, ok := newServiceDecoder().decode(body); ok {
		t.Fatal("it is not odd")
	}
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Service"}, Raw: body}
	raw, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	event := metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: append([]byte("k8s\x00"), raw...)}}
	message, err := event.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeAll(t, reading(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...), false))
	if diff := cmp.Diff([]brought{{Of: watch.Added, Version: "1", Names: []string{"s0000"}}}, got); diff != "" || !errors.Is(err, io.EOF) {
		t.Errorf("%v\n%s", err, diff)
	}
}

// asked is an API server that keeps what it was asked, and always answers the same.
type asked struct {
	answer func(*http.Request) (*http.Response, error)
	urls   []string
	accept []string
}

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	a.urls, a.accept = append(a.urls, r.URL.RequestURI()), append(a.accept, r.Header.Get("Accept"))
	return a.answer(r)
}

// A watch of ours asks what a typed client asks, and its errors are the same.
func TestAWatchAsksAsTypedClientsDo(t *testing.T) {
	seconds, yes := int64(300), true
	o := metav1.ListOptions{LabelSelector: ourServices, ResourceVersion: "7", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		AllowWatchBookmarks: true, SendInitialEvents: &yes, TimeoutSeconds: &seconds}
	answers := map[string]func(r *http.Request) (*http.Response, error){
		"expired": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusGone, Request: r, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(
				strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"old","reason":"Expired","code":410}`))}, nil
		},
		"refused": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusForbidden, Request: r, Header: http.Header{}, Body: http.NoBody}, nil
		},
		"empty": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Request: r, Body: http.NoBody,
				Header: http.Header{"Content-Type": {runtime.ContentTypeProtobuf + ";stream=watch"}}}, nil
		},
	}
	for name, answer := range answers {
		api := &asked{answer: answer}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://asked", Transport: api, QPS: -1,
			ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf}})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		typed, typedErr := client.CoreV1().Services("").Watch(ctx, o)
		ours, err := rows[*corev1.ServiceList, *corev1.Service, servedOrNot]{client.CoreV1().Services(""), client.CoreV1().RESTClient(), "services",
			newServiceDecoder, serviceStore(state.New(), time.Now)}.Watch(ctx, o)
		if apierrors.ReasonForError(err) != apierrors.ReasonForError(typedErr) || (err == nil) != (typedErr == nil) {
			t.Errorf("%s: error %v, and of a typed client %v", name, err, typedErr)
		}
		for _, w := range []watch.Interface{typed, ours} {
			if err == nil {
				if e, open := <-w.ResultChan(); open {
					t.Errorf("%s: event %v", name, e)
				}
			}
		}
		if len(api.urls) != 2 || api.urls[0] != api.urls[1] || api.accept[0] != api.accept[1] {
			t.Errorf("%s: asked %q accepting %q", name, api.urls, api.accept)
		}
	}
}

// A list brings what Kubernetes' own decoder finds in it, or leaves it to that.
func TestListsAreDecodedAsByKubernetes(t *testing.T) {
	list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "77", Continue: "more"}}
	for i := range perParcel + 3 {
		list.Items = append(list.Items, *numbered(t, i))
	}
	for mediaType, whole := range map[string]bool{runtime.ContentTypeProtobuf: true, runtime.ContentTypeJSON: false} {
		info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
		if !ok {
			t.Fatal(mediaType)
		}
		raw, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), list)
		if err != nil {
			t.Fatal(err)
		}
		api := &asked{answer: func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(bytes.NewReader(raw))}, nil
		}}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://asked", Transport: api, QPS: -1,
			ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf}})
		if err != nil {
			t.Fatal(err)
		}
		tables := state.New(state.Services)
		store := serviceStore(tables, time.Now)
		from := rows[*corev1.ServiceList, *corev1.Service, servedOrNot]{client.CoreV1().Services(""), client.CoreV1().RESTClient(), "services", newServiceDecoder, store}
		o := metav1.ListOptions{LabelSelector: ourServices, Limit: 500}
		got, err := from.listRows(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := from.List(t.Context(), o); err != nil || api.urls[0] != api.urls[1] || api.accept[0] != api.accept[1] {
			t.Errorf("asked %q accepting %q: %v", api.urls, api.accept, err)
		}
		if _, ok := got.(*parcels[servedOrNot]); ok != whole {
			t.Errorf("%s: %T", mediaType, got)
		}
		said, err := meta.ListAccessor(got)
		if err != nil || said.GetResourceVersion() != "77" || said.GetContinue() != "more" {
			t.Errorf("%s: %v %+v", mediaType, err, said)
		}
		items, err := meta.ExtractList(got)
		if err != nil {
			t.Fatal(err)
		}
		var all []any
		for _, o := range items {
			all = append(all, o)
		}
		if err := store.Replace(all, "77"); err != nil {
			t.Fatal(err)
		}
		if n := len(slices.Collect(tables.Snapshot().Services())); n != len(list.Items) {
			t.Errorf("%s: %d services", mediaType, n)
		}
	}
	if _, ok := openList(newServiceDecoder(), serviceStore(state.New(), time.Now), []byte("k8s\x00\x0a\x01")); ok {
		t.Error("half a list is a list")
	}
}
