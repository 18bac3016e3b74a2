// Package dump reads what kubectl prints of a cluster, in YAML or JSON, into our terms. What it
// cannot read, or what is strange, becomes a note; everything else is read all the same.
package dump

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/zonewise/zonewise/internal/model"
)

// Dump is a cluster on file. Everything is ordered by name, each name once.
type Dump struct {
	Nodes      []model.Node
	Services   []model.Service
	Slices     []model.Slice
	Pods       []model.Pod
	Routes     []model.ZoneRoute
	Namespaces map[string]model.Mode // that say a mode
	Skipped    map[model.Name]string // Services that nothing can be planned for, and why
	Notes      []Note                // ordered
}

// Note is something that the reader of a plan should know about its input.
type Note struct {
	Object  string // "Node n7", "EndpointSlice shop/web-x7"; "input" for the whole
	Field   string // "metadata.labels[topology.kubernetes.io/zone]"; empty for the whole object
	Message string
}

// String returns "Node n7: FIELD: MESSAGE".
func (n Note) String() string {
	if n.Field == "" {
		return n.Object + ": " + n.Message
	}
	return n.Object + ": " + n.Field + ": " + n.Message
}

// Read reads any number of objects and lists of them, one after another, all YAML or all JSON. Its
// error is the reader's, or that there is no object at all.
func Read(r io.Reader) (Dump, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if bom, err := in.Peek(3); err == nil && bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		in.Discard(3) //nolint:errcheck // peeked
	}
	s := &splitter{items: make(chan item, 64)}
	found := &findings{unknown: map[string]int{}}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range s.items {
				found.add(decode(i))
			}
		})
	}
	err := s.split(in)
	close(s.items)
	wg.Wait()
	if err != nil {
		return Dump{}, fmt.Errorf("input: %w", err)
	}
	if found.count == 0 && len(s.notes) == 0 && len(found.notes) == 0 {
		return Dump{}, errors.New("input: no Kubernetes object in it")
	}
	out := found.dump()
	out.Notes = append(out.Notes, s.notes...)
	out.check()
	slices.SortFunc(out.Notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Message, b.Message))
	})
	return out, nil
}

// item is the text of one object, or of a document that may be a list.
type item struct {
	seq  int
	text []byte
	yaml bool
	kind string // "v1 Node", for items of a list that says it for all; else empty
	what string // "item 7", to name it by where nothing else is known
}

// splitter cuts the input into items, so that no more of it than one item for each processor is in
// memory.
type splitter struct {
	items chan item
	seq   int
	notes []Note
}

func (s *splitter) send(i item) {
	s.seq++
	i.seq = s.seq
	i.what = fmt.Sprintf("object %d of the input", s.seq)
	s.items <- i
}

func (s *splitter) note(format string, args ...any) {
	s.notes = append(s.notes, Note{Object: "input", Message: fmt.Sprintf(format, args...)})
}

// split takes the first letter for the sign of the language: YAML that begins with a brace is JSON
// to all who write dumps.
func (s *splitter) split(in *bufio.Reader) error {
	for {
		b, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case b == ' ' || b == '\t' || b == '\r' || b == '\n':
			continue
		}
		in.UnreadByte() //nolint:errcheck // just read
		if b == '{' || b == '[' {
			return s.json(in)
		}
		return s.yaml(in)
	}
}

// findings collects what the items are. Its order is that of the processors; dump sorts.
type findings struct {
	mu       sync.Mutex
	count    int
	notes    []Note
	unknown  map[string]int // kinds that we do not need
	nodes    []found[model.Node]
	services []found[served]
	slices   []found[model.Slice]
	pods     []found[model.Pod]
	routes   []found[model.ZoneRoute]
	spaces   []found[space]
}

// found is an object, and its place in the input.
type found[T any] struct {
	object string // "Node n7"
	at     place
	row    T
}

// served is a Service, or why nothing can be planned for it.
type served struct {
	model.Service
	why string
}

type space struct{ name, mode string }

func (f *findings) add(objects []object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range objects {
		f.addOne(o)
	}
}

func (f *findings) addOne(o object) {
	if o.kind != "" {
		f.count++
	}
	for _, n := range o.notes {
		n.Object = o.name(o.what)
		f.notes = append(f.notes, n)
	}
	if o.unknown != "" {
		f.unknown[o.unknown]++
	}
	switch row := o.row.(type) {
	case model.Node:
		f.nodes = append(f.nodes, found[model.Node]{o.name(o.what), o.at, row})
	case served:
		f.services = append(f.services, found[served]{o.name(o.what), o.at, row})
	case model.Slice:
		f.slices = append(f.slices, found[model.Slice]{o.name(o.what), o.at, row})
	case model.Pod:
		f.pods = append(f.pods, found[model.Pod]{o.name(o.what), o.at, row})
	case model.ZoneRoute:
		f.routes = append(f.routes, found[model.ZoneRoute]{o.name(o.what), o.at, row})
	case space:
		f.spaces = append(f.spaces, found[space]{o.name(o.what), o.at, row})
	}
}

func (f *findings) dump() Dump {
	out := Dump{Namespaces: map[string]model.Mode{}, Skipped: map[model.Name]string{}}
	out.Nodes = unique(f, f.nodes, func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range unique(f, f.services, func(a, b served) int { return a.Name.Compare(b.Name) }) {
		if s.why != "" {
			out.Skipped[s.Name] = s.why
		} else {
			out.Services = append(out.Services, s.Service)
		}
	}
	out.Slices = unique(f, f.slices, func(a, b model.Slice) int { return a.Name.Compare(b.Name) })
	out.Pods = unique(f, f.pods, func(a, b model.Pod) int { return a.Name.Compare(b.Name) })
	out.Routes = unique(f, f.routes, func(a, b model.ZoneRoute) int { return a.Name.Compare(b.Name) })
	for _, n := range unique(f, f.spaces, func(a, b space) int { return strings.Compare(a.name, b.name) }) {
		out.Namespaces[n.name] = model.Mode(n.mode)
	}
	for kind, n := range f.unknown {
		f.notes = append(f.notes, Note{Object: kind, Field: "kind", Message: fmt.Sprintf("not needed: %d skipped", n)})
	}
	out.Notes = f.notes
	return out
}

// unique orders rows and keeps the last of those with the same name.
func unique[T any](f *findings, rows []found[T], compare func(a, b T) int) []T {
	slices.SortFunc(rows, func(a, b found[T]) int {
		return cmp.Or(compare(a.row, b.row), cmp.Compare(a.at.item, b.at.item), cmp.Compare(a.at.index, b.at.index))
	})
	var out []T
	for i, r := range rows {
		if i > 0 && compare(rows[i-1].row, r.row) == 0 {
			out[len(out)-1] = r.row
			if !reflect.DeepEqual(rows[i-1].row, r.row) {
				f.notes = append(f.notes, Note{Object: r.object, Message: "more than once in the input, and not the same: the last counts"})
			}
			continue
		}
		out = append(out, r.row)
	}
	return out
}
