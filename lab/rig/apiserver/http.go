package apiserver

import (
	"bufio"
	"context"
	stdjson "encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// ServeHTTP answers lists, gets and watches of the resources that there are. What clients tell
// (events, leases) is accepted and forgotten.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		accept(w, r)
		return
	}
	if r.Method == http.MethodGet && discover(w, r.URL.Path) {
		return
	}
	to, ok := parse(r.URL.Path)
	t := s.tables[to.resource]
	if !ok || t == nil || r.Method != http.MethodGet {
		fail(w, apierrors.NewNotFound(schema.GroupResource{Resource: string(to.resource)}, to.name))
		return
	}
	q, err := newQuery(r, to)
	switch m := negotiate(r.Header.Get("Accept")); {
	case err != nil:
		fail(w, apierrors.NewBadRequest(err.Error()))
	case to.name != "":
		get(w, m, t, to)
	case q.watch:
		s.watch(w, r, m, t, q)
	default:
		list(w, m, t, q)
	}
}

// query is what a client wants of a resource.
type query struct {
	target
	labels  labels.Selector
	fields  fields.Selector
	watch   bool
	initial bool   // begin with all that there is, and say where that ends
	version uint64 // of the last that the client knows; 0: begin with all that there is
	timeout time.Duration
}

func newQuery(r *http.Request, to target) (q query, err error) {
	v := r.URL.Query()
	q = query{target: to, watch: v.Get("watch") == "true" || v.Get("watch") == "1", initial: v.Get("sendInitialEvents") == "true"}
	if q.labels, err = labels.Parse(v.Get("labelSelector")); err != nil {
		return q, err
	}
	if q.fields, err = fields.ParseSelector(v.Get("fieldSelector")); err != nil {
		return q, err
	}
	for name, into := range map[string]func(uint64){
		"resourceVersion": func(n uint64) { q.version = n },
		"timeoutSeconds":  func(n uint64) { q.timeout = time.Duration(n) * time.Second },
	} {
		if text := v.Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return q, err
			}
			into(n)
		}
	}
	return q, nil
}

func (q query) wants(e *event) bool {
	return (q.namespace == "" || e.meta.GetNamespace() == q.namespace) &&
		q.labels.Matches(labels.Set(e.meta.GetLabels())) && (q.fields.Empty() || q.fields.Matches(fieldsOf(e)))
}

// accept returns what it was given, as if it had been made.
func accept(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // who does not wait for the answer does not want it
}

func fail(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	w.Header().Set("Content-Type", json.contentType())
	w.WriteHeader(int(status.Code))
	_ = stdjson.NewEncoder(w).Encode(status)
}

func answer(w http.ResponseWriter, m media, o apiruntime.Object) {
	w.Header().Set("Content-Type", m.contentType())
	_ = m.info().Serializer.Encode(o, w)
}

func get(w http.ResponseWriter, m media, t *table, to target) {
	e := t.get(key(to.namespace, to.name))
	if e == nil {
		fail(w, apierrors.NewNotFound(schema.GroupResource{Resource: string(to.resource)}, to.name))
		return
	}
	answer(w, m, e.object)
}

func list(w http.ResponseWriter, m media, t *table, q query) {
	events, version := t.all()
	var items []apiruntime.Object
	for _, e := range events {
		if q.wants(e) {
			items = append(items, e.object)
		}
	}
	l := lists[q.resource]()
	err := meta.SetList(l, items)
	if err == nil {
		err = stamp(l, version)
	}
	if err != nil {
		fail(w, apierrors.NewInternalError(err))
		return
	}
	answer(w, m, l)
}

// stamp gives a list or an empty object its kind and version.
func stamp(o apiruntime.Object, version uint64) error {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		return err
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	if l, err := meta.ListAccessor(o); err == nil {
		l.SetResourceVersion(strconv.FormatUint(version, 10))
		return nil
	}
	one, err := meta.Accessor(o)
	if err == nil {
		one.SetResourceVersion(strconv.FormatUint(version, 10))
	}
	return err
}

// watch sends what there is, where that was asked for, and then every change as it comes.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, m media, t *table, q query) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if q.timeout > 0 {
		ctx, cancel = context.WithTimeout(r.Context(), q.timeout)
		defer cancel()
	}
	stream := &stream{media: m, out: bufio.NewWriterSize(w, 1<<18), flush: http.NewResponseController(w).Flush}
	w.Header().Set("Content-Type", m.contentType()+";stream=watch")
	version := q.version
	if q.initial || version == 0 {
		var events []*event
		events, version = t.all()
		for _, e := range events {
			if q.wants(e) {
				stream.send(e.frame(m))
			}
		}
	}
	if q.initial {
		stream.send(bookmark(m, q.resource, version))
	}
	stream.end()
	for stream.err == nil {
		events, more, known := t.since(version)
		if !known {
			gone := apierrors.NewResourceExpired("too old resource version").Status()
			gone.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
			stream.send(frame(m, watch.Error, &gone))
			stream.end()
			return
		}
		if len(events) > 0 {
			version = events[len(events)-1].version
			s.send(stream, q, events)
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// send sends the changes that are wanted, and tells of it.
func (s *Server) send(to *stream, q query, events []*event) {
	var sent []*event
	for _, e := range events {
		if q.wants(e) {
			to.send(e.frame(to.media))
			sent = append(sent, e)
		}
	}
	if len(sent) == 0 {
		return
	}
	at := time.Now()
	to.end()
	if s.opts.Written == nil || to.err != nil {
		return
	}
	for _, e := range sent {
		s.opts.Written(Written{string(q.resource), e.meta.GetNamespace(), e.meta.GetName(), e.version, at})
	}
}

// stream is a watch's answer. After an error it does nothing more.
type stream struct {
	media media
	out   *bufio.Writer
	flush func() error
	err   error
}

func (s *stream) send(frame []byte, err error) {
	if s.err == nil {
		s.err = err
	}
	if s.err == nil {
		_, s.err = s.out.Write(frame)
	}
}

func (s *stream) end() {
	if s.err == nil {
		s.err = s.out.Flush()
	}
	if s.err == nil {
		s.err = s.flush()
	}
}

// bookmark says that all there was has been sent.
func bookmark(m media, r resource, version uint64) ([]byte, error) {
	o := empty[r]()
	if err := stamp(o, version); err != nil {
		return nil, err
	}
	one, err := meta.Accessor(o)
	if err != nil {
		return nil, err
	}
	one.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return frame(m, watch.Bookmark, o)
}
