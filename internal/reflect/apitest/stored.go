package apitest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// Stored is an API server without a server or a wire: it answers lists and watches of what it was
// made with, encoded beforehand, as fast as they are read. What is measured with it is the client.
type Stored struct {
	// StreamLists tells whether it streams lists, as API servers do by default since Kubernetes 1.34.
	StreamLists bool

	dir string // a file for each resource and way; in memory they would be a heap that no agent has
}

const (
	listFile   = ".list"
	streamFile = ".stream" // the same as events, up to the mark that ends a list
)

// NewStored returns an API that has these lists, by resource: "services". A resource that is not
// among them is not found. It needs a folder of its own.
func NewStored(dir string, lists map[string]runtime.Object) (*Stored, error) {
	s := &Stored{StreamLists: true, dir: dir}
	for resource, list := range lists {
		if err := s.store(resource, list); err != nil {
			return nil, fmt.Errorf("%s: %w", resource, err)
		}
	}
	return s, nil
}

func (s *Stored) store(resource string, list runtime.Object) error {
	e, err := newEncoder(list)
	if err != nil {
		return err
	}
	whole, err := e.list(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, resource+listFile), whole, 0o600); err != nil {
		return err
	}
	events, err := e.stream(list)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, resource+streamFile), events, 0o600)
}

// Client returns a client of the API that asks as kube.Client's do.
func (s *Stored) Client() (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(&rest.Config{
		Host: "http://stored", Transport: s, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf},
	})
}

// RoundTrip answers a request.
func (s *Stored) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	watches, streams := query.Get("watch") == "true", query.Get("sendInitialEvents") == "true"
	way, contentType := listFile, runtime.ContentTypeProtobuf
	if watches {
		way, contentType = streamFile, contentType+";stream=watch"
	}
	body, err := os.Open(filepath.Join(s.dir, path.Base(r.URL.Path)+way))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return answer(r, http.StatusNotFound, "text/plain", http.NoBody), nil
	case err != nil:
		return nil, err
	case !watches:
		return answer(r, http.StatusOK, contentType, body), nil
	case streams && !s.StreamLists:
		return answer(r, http.StatusUnprocessableEntity, "text/plain", http.NoBody), body.Close()
	case !streams: // nothing is new since the list
		if _, err := body.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	events := &endless{Reader: bufio.NewReaderSize(body, 64<<10), file: body, request: r, closed: make(chan struct{})}
	return answer(r, http.StatusOK, contentType, events), nil
}

func answer(r *http.Request, status int, contentType string, body io.ReadCloser) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r, ContentLength: -1,
		Header: http.Header{"Content-Type": []string{contentType}}, Body: body,
	}
}

// endless is a body after which nothing more comes until somebody closes it or stops asking.
type endless struct {
	*bufio.Reader // as an HTTP client has one
	file          *os.File
	request       *http.Request
	closed        chan struct{}
	once          sync.Once
}

func (e *endless) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case <-e.closed:
	case <-e.request.Context().Done():
	}
	return 0, io.EOF
}

func (e *endless) Close() (err error) {
	e.once.Do(func() {
		close(e.closed)
		err = e.file.Close()
	})
	return err
}

// encoder writes lists of one kind.
type encoder struct {
	objects runtime.Encoder
	events  runtime.Encoder
	framer  runtime.Framer
	item    runtime.Object // an empty one
}

func newEncoder(list runtime.Object) (*encoder, error) {
	kinds, _, err := scheme.Scheme.ObjectKinds(list)
	if err != nil {
		return nil, err
	}
	of := kinds[0]
	of.Kind = strings.TrimSuffix(of.Kind, "List")
	item, err := scheme.Scheme.New(of)
	if err != nil {
		return nil, err
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return nil, fmt.Errorf("no codec for %s", runtime.ContentTypeProtobuf)
	}
	return &encoder{
		objects: scheme.Codecs.EncoderForVersion(info.Serializer, of.GroupVersion()),
		events:  info.StreamSerializer.Serializer, framer: info.StreamSerializer.Framer, item: item,
	}, nil
}

func (e *encoder) list(list runtime.Object) ([]byte, error) {
	of, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	of.SetResourceVersion("1")
	return runtime.Encode(e.objects, list)
}

func (e *encoder) stream(list runtime.Object) ([]byte, error) {
	var out bytes.Buffer
	frames := e.framer.NewFrameWriter(&out)
	write := func(of watch.EventType, object runtime.Object) error {
		raw, err := runtime.Encode(e.objects, object)
		if err != nil {
			return err
		}
		return e.events.Encode(&metav1.WatchEvent{Type: string(of), Object: runtime.RawExtension{Raw: raw}}, frames)
	}
	if err := meta.EachListItem(list, func(o runtime.Object) error { return write(watch.Added, o) }); err != nil {
		return nil, err
	}
	end, err := meta.Accessor(e.item)
	if err != nil {
		return nil, err
	}
	end.SetResourceVersion("1")
	end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	if err := write(watch.Bookmark, e.item); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
