package apiserver

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// media is an encoding that clients can ask for; its values are indexes.
type media int

const (
	protobuf media = iota
	json
	medias
)

// contentTypes are the encodings' names; those of a watch are told from them by their parameter.
func (m media) contentType() string {
	return [medias]string{apiruntime.ContentTypeProtobuf, apiruntime.ContentTypeJSON}[m]
}

func (m media) info() apiruntime.SerializerInfo {
	i, _ := apiruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), m.contentType())
	return i
}

// negotiate is the first encoding of an Accept header that we have; JSON where there is none.
func negotiate(accept string) media {
	for part := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(part, ";")
		for m := range medias {
			if strings.TrimSpace(name) == m.contentType() {
				return m
			}
		}
	}
	return json
}

// event is an object and what happened to it, as the bytes that a watch sends. It is encoded when
// somebody first asks, and then never again.
type event struct {
	kind    watch.EventType
	object  apiruntime.Object // never changed
	meta    metav1.Object
	key     string
	version uint64
	frames  [medias]struct {
		once  sync.Once
		bytes []byte
		err   error
	}
}

// newEvent takes a copy of an object, and stamps it with its kind and version.
func newEvent(kind watch.EventType, o apiruntime.Object, version uint64) (*event, error) {
	o = o.DeepCopyObject()
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		return nil, err
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, err
	}
	m.SetResourceVersion(strconv.FormatUint(version, 10))
	return &event{kind: kind, object: o, meta: m, key: key(m.GetNamespace(), m.GetName()), version: version}, nil
}

// added is the event that tells a new watcher of the object as it is.
func (e *event) added() *event {
	if e.kind == watch.Added {
		return e
	}
	return &event{kind: watch.Added, object: e.object, meta: e.meta, key: e.key, version: e.version}
}

func (e *event) frame(m media) ([]byte, error) {
	f := &e.frames[m]
	f.once.Do(func() { f.bytes, f.err = frame(m, e.kind, e.object) })
	return f.bytes, f.err
}

// frame is what a watch sends: the object, within an event, within a frame.
func frame(m media, kind watch.EventType, o apiruntime.Object) ([]byte, error) {
	info := m.info()
	var object, whole, out bytes.Buffer
	if err := info.Serializer.Encode(o, &object); err != nil {
		return nil, err
	}
	e := &metav1.WatchEvent{Type: string(kind), Object: apiruntime.RawExtension{Raw: object.Bytes()}}
	if err := info.StreamSerializer.Serializer.Encode(e, &whole); err != nil {
		return nil, err
	}
	if _, err := info.StreamSerializer.Framer.NewFrameWriter(&out).Write(whole.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func key(namespace, name string) string { return namespace + "/" + name }

// first is the version that objects of a snapshot have.
const first = 1

// Snapshot is a set of objects that any number of servers can begin with, encoded already.
type Snapshot struct {
	tables map[resource][]*event // in the order given
}

// Prepare encodes objects, as protobuf: that is what nodes ask for.
func Prepare(objects ...apiruntime.Object) (*Snapshot, error) {
	s := &Snapshot{tables: map[resource][]*event{}}
	for _, o := range objects {
		r, err := resourceOf(o)
		if err != nil {
			return nil, fmt.Errorf("scripted API server: %w", err)
		}
		e, err := newEvent(watch.Added, o, first)
		if err != nil {
			return nil, fmt.Errorf("scripted API server: %w", err)
		}
		s.tables[r] = append(s.tables[r], e)
	}
	group := new(errgroup.Group)
	group.SetLimit(runtime.NumCPU())
	const batch = 1000
	for _, events := range s.tables {
		for from := 0; from < len(events); from += batch {
			group.Go(func() error {
				for _, e := range events[from:min(from+batch, len(events))] {
					if _, err := e.frame(protobuf); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("scripted API server: %w", err)
	}
	return s, nil
}

// Bytes is how much a client reads that watches everything from the beginning.
func (s *Snapshot) Bytes() int {
	sum := 0
	for _, events := range s.tables {
		for _, e := range events {
			sum += len(e.frames[protobuf].bytes)
		}
	}
	return sum
}
