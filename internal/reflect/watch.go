package reflect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
	"k8s.io/klog/v2"
)

// decoder decodes objects of kind K, each into the same memory.
type decoder[K metav1.Object] interface {
	// decode returns an object that holds until the next call, or false: the message is not what it knows.
	decode(message []byte) (K, bool)
	kind() (apiVersion, kind string)
}

// parcel is rows on their way to the tables. To client-go it is an object.
type parcel[T any] struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	lot[T]
}

// DeepCopyObject copies the parcel. Rows never change.
func (p *parcel[T]) DeepCopyObject() runtime.Object {
	out := *p
	return &out
}

// parcels are a whole list. To client-go it is a list of objects.
type parcels[T any] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*parcel[T]
}

// DeepCopyObject copies the list. Parcels never change.
func (p *parcels[T]) DeepCopyObject() runtime.Object {
	out := *p
	return &out
}

// Bounds of what is read from a watch.
const (
	perParcel  = 512      // objects of a first list that go to client-go at once
	readAhead  = 64 << 10 // bytes
	maxMessage = 16 << 20 // bytes of one event; client-go's bound
)

// rows is a typed client of one resource whose lists and watches bring rows instead of objects.
type rows[L runtime.Object, K metav1.Object, T any] struct {
	api[L]
	client   rest.Interface
	resource string
	decoder  func() decoder[K]
	store    *store[K, T]
}

// real tells whether there is an API server to ask. Where there is but a fake, the typed client has to do.
func (w rows[L, K, T]) real() bool {
	c, ok := w.client.(*rest.RESTClient)
	return ok && c != nil
}

func (w rows[L, K, T]) request(o *metav1.ListOptions) *rest.Request {
	var timeout time.Duration
	if o.TimeoutSeconds != nil {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	return w.client.Get().UseProtobufAsDefaultIfPreferred(true).Resource(w.resource).
		VersionedParams(o, scheme.ParameterCodec).Timeout(timeout)
}

// listRows lists as the typed client does, but parcels, if it can.
func (w rows[L, K, T]) listRows(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if !w.real() {
		return w.List(ctx, o)
	}
	result := w.request(&o).Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	raw, err := result.Raw()
	if err != nil {
		return nil, err
	}
	if list, ok := openList(w.decoder(), w.store, raw); ok {
		return list, nil
	}
	return runtime.Decode(scheme.Codecs.UniversalDeserializer(), raw)
}

// Watch asks as the typed client does, and decodes by itself.
func (w rows[L, K, T]) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if !w.real() {
		return w.api.Watch(ctx, o)
	}
	o.Watch = true
	body, err := w.request(&o).Stream(ctx)
	switch {
	case err != nil && (net.IsProbableEOF(err) || net.IsTimeout(err)): // as typed clients take it
		return watch.NewEmptyWatch(), nil
	case err != nil:
		return nil, err
	}
	events := newRowStream(body, w.decoder(), w.store, o.SendInitialEvents != nil && *o.SendInitialEvents)
	return watch.NewStreamWatcherWithLogger(klog.FromContext(ctx), events,
		apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")), nil
}

// rowStream is a watch's answer. Until the mark that ends a first list, many objects make one event:
// nobody looks at them before it is complete.
type rowStream[K metav1.Object, T any] struct {
	body    io.ReadCloser
	in      *bufio.Reader
	decoder decoder[K]
	store   *store[K, T]
	begun   bool
	text    watch.Decoder // set if the API server speaks JSON

	message []byte    // the last that was read
	list    bool      // a first list is on its way
	number  uint64    // parcels of it so far
	after   *event[T] // what came after the last of them
}

func newRowStream[K metav1.Object, T any](body io.ReadCloser, d decoder[K], to *store[K, T], list bool) *rowStream[K, T] {
	return &rowStream[K, T]{body: body, in: bufio.NewReaderSize(body, readAhead), decoder: d, store: to, list: list}
}

// event is one event of a watch. Object is set if it is about something else than an object of our kind.
type event[T any] struct {
	of      watch.EventType
	row     arrival[T]
	version string
	ends    bool // the first list
	object  runtime.Object
}

// Close ends the stream.
func (s *rowStream[K, T]) Close() { _ = s.body.Close() } // its reader gets the error

// Decode returns the next event. Errors of the connection are returned as they are, so that client-go knows them.
func (s *rowStream[K, T]) Decode() (watch.EventType, runtime.Object, error) {
	if !s.begun {
		s.begun = true
		if err := s.recognise(); err != nil {
			return "", nil, err
		}
	}
	if s.text != nil {
		return s.text.Decode()
	}
	if e := s.after; e != nil {
		s.after = nil
		return e.of, e.alone(), nil
	}
	if s.list {
		return s.first()
	}
	e, err := s.next()
	if err != nil {
		return "", nil, err
	}
	return e.of, e.alone(), nil
}

// recognise looks in what way the API server answers. In protobuf the length of an event comes first, of
// which the first byte is 0 up to 16 MiB.
func (s *rowStream[K, T]) recognise() error {
	first, err := s.in.Peek(1)
	if err != nil || first[0] == 0 {
		return err
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	if !ok {
		return errors.New("no decoder for JSON")
	}
	frames := info.StreamSerializer.Framer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{s.in, s.body})
	s.text = restwatch.NewDecoder(streaming.NewDecoder(frames, info.StreamSerializer.Serializer), scheme.Codecs.UniversalDeserializer())
	return nil
}

// first returns the next objects of a first list together, each in its place, or what is none of them.
func (s *rowStream[K, T]) first() (watch.EventType, runtime.Object, error) {
	p := &parcel[T]{lot: lot[T]{number: s.number, rows: make([]arrival[T], 0, perParcel)}}
	p.Name = strconv.FormatUint(s.number, 10) // client-go keeps one object by each name
	s.number++
	for len(p.rows) < perParcel {
		e, err := s.next()
		if err != nil {
			return "", nil, err
		}
		if e.object != nil || e.of == watch.Bookmark {
			s.list = !e.ends
			if len(p.rows) == 0 {
				return e.of, e.alone(), nil
			}
			s.after = new(event[T]) // not &e: each e would be on the heap then
			*s.after = e
			break
		}
		e.row.ours = e.row.ours && e.of != watch.Deleted
		p.rows, p.ResourceVersion = append(p.rows, e.row), e.version
	}
	return watch.Added, p, nil
}

// alone returns an event's object as client-go is given it.
func (e *event[T]) alone() runtime.Object {
	if e.object != nil {
		return e.object
	}
	p := &parcel[T]{lot: lot[T]{rows: []arrival[T]{e.row}}}
	p.Namespace, p.Name, p.ResourceVersion = e.row.name.Namespace, e.row.name.Name, e.version
	if e.ends {
		p.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return p
}

// next reads one event.
func (s *rowStream[K, T]) next() (event[T], error) {
	if err := s.read(); err != nil {
		return event[T]{}, err
	}
	of, raw, ok := openEvent(s.message)
	if !ok {
		return event[T]{}, errors.New("not a watch event")
	}
	e := event[T]{of: watch.EventType(of)}
	switch e.of {
	case watch.Added, watch.Modified, watch.Deleted, watch.Error, watch.Bookmark:
	default:
		return e, fmt.Errorf("a watch event of type %q", of)
	}
	o, ok := openObject(s.decoder, raw)
	if !ok {
		object, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), raw)
		if err != nil {
			return e, err
		}
		if o, ok = object.(K); !ok {
			e.object = object
			return e, nil
		}
	}
	e.version, e.ends = o.GetResourceVersion(), o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
	if e.ends = e.ends && e.of == watch.Bookmark; e.of != watch.Bookmark {
		e.row = s.store.arrived(o)
	}
	return e, nil
}

// read reads a message: its length in four bytes, the greatest first, and then itself.
func (s *rowStream[K, T]) read() error {
	head, err := s.in.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) && len(head) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n > maxMessage {
		return fmt.Errorf("a watch event of %d bytes", n)
	}
	if _, err := s.in.Discard(len(head)); err != nil {
		return err
	}
	s.message = slices.Grow(s.message[:0], n)[:n]
	_, err = io.ReadFull(s.in, s.message)
	if n > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// openEvent returns what a watch event says, and its object as it is on the wire.
func openEvent(message []byte) (of string, object []byte, ok bool) {
	var kind []byte
	ok = each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			kind = f.bytes
		case 2<<3 | length:
			return each(f.bytes, func(f field) bool {
				if f.tag == 1<<3|length {
					object = f.bytes
				}
				return true
			})
		}
		return true
	})
	return string(kind), object, ok
}

// openObject decodes an object of the decoder's kind.
func openObject[K metav1.Object](d decoder[K], message []byte) (object K, ok bool) {
	version, kind := d.kind()
	inside, ok := unpack(message, version, kind)
	if !ok {
		return object, false
	}
	return d.decode(inside)
}

// openList decodes a list of objects of the decoder's kind.
func openList[K metav1.Object, T any](d decoder[K], to *store[K, T], message []byte) (*parcels[T], bool) {
	version, kind := d.kind()
	inside, ok := unpack(message, version, kind+"List")
	if !ok {
		return nil, false
	}
	list, last := &parcels[T]{}, &parcel[T]{}
	return list, each(inside, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			return list.ListMeta.Unmarshal(f.bytes) == nil
		case 2<<3 | length:
			o, ok := d.decode(f.bytes)
			if !ok {
				return false
			}
			if len(last.rows) == cap(last.rows) {
				last = &parcel[T]{lot: lot[T]{number: uint64(len(list.Items)), rows: make([]arrival[T], 0, perParcel)}}
				list.Items = append(list.Items, last)
			}
			last.rows = append(last.rows, to.arrived(o))
		}
		return true
	})
}

// unpack returns an object's message. Kubernetes marks what it says in protobuf by four bytes, and
// packs it into a message that says what it is.
func unpack(message []byte, wantVersion, wantKind string) (inside []byte, ok bool) {
	message, ok = bytes.CutPrefix(message, []byte("k8s\x00"))
	if !ok {
		return nil, false
	}
	var version, kind []byte
	plain := each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			return each(f.bytes, func(f field) bool {
				switch f.tag {
				case 1<<3 | length:
					version = f.bytes
				case 2<<3 | length:
					kind = f.bytes
				}
				return true
			})
		case 2<<3 | length:
			inside = f.bytes
		case 3<<3 | length, 4<<3 | length: // how it is encoded, if otherwise
			return len(f.bytes) == 0
		}
		return true
	})
	return inside, plain && string(version) == wantVersion && string(kind) == wantKind
}
