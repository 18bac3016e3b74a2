package state

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/zonewise/zonewise/internal/model"
)

const (
	tableNodes      = "nodes"
	tableServices   = "services"
	tableUnserved   = "unserved"
	tableSlices     = "slices"
	tableRoutes     = "routes"
	tablePods       = "pods"
	tableNamespaces = "namespaces"
	tableCIDRs      = "cidrs"
	tableChanges    = "changes"

	indexID       = "id"
	indexService  = "service"
	indexRevision = "revision"
)

var schema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	tableNodes:    table(tableNodes, by(func(n model.Node) string { return n.Name })),
	tableServices: table(tableServices, by(func(s model.Service) string { return key(s.Name) })),
	tableSlices: table(tableSlices, by(func(s model.Slice) string { return key(s.Name) }),
		&memdb.IndexSchema{Name: indexService, Indexer: by(func(s model.Slice) string { return key(s.ServiceName()) })}),
	tableUnserved:   table(tableUnserved, by(func(u unserved) string { return key(u.Name) })),
	tableRoutes:     table(tableRoutes, by(func(r model.ZoneRoute) string { return key(r.Name) })),
	tablePods:       table(tablePods, by(func(p model.Pod) string { return key(p.Name) })),
	tableNamespaces: table(tableNamespaces, by(func(n namespace) string { return n.name })),
	tableCIDRs:      table(tableCIDRs, by(func(c serviceCIDR) string { return c.name })),
	tableChanges: table(tableChanges, by(func(c change) string { return c.subject.key() }),
		&memdb.IndexSchema{Name: indexRevision, Unique: true, Indexer: byRevision{}}),
}}

func table(name string, id memdb.Indexer, others ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		indexID: {Name: indexID, Unique: true, Indexer: id},
	}}
	for _, o := range others {
		t.Indexes[o.Name] = o
	}
	return t
}

// unserved is a Service that no dataplane has anything to do for, and why.
type unserved struct {
	model.Name
	why string
}

// namespace is a namespace that says something about its Services.
type namespace struct {
	name    string
	mode    model.Mode
	invalid string // what it says instead of a mode
}

// serviceCIDR is an object that says from which ranges Services get their addresses.
type serviceCIDR struct {
	name     string
	prefixes []netip.Prefix
}

// subject is what a change is about: the ranges of Services' addresses, a node or, if it is neither, a service.
type subject struct {
	cidrs   bool
	node    string
	service model.Name
}

func (s subject) key() string {
	switch {
	case s.cidrs:
		return "c\x00"
	case s.node != "":
		return "n\x00" + s.node
	}
	return "s\x00" + key(s.service)
}

// change is the news about one subject that some reader may not have seen yet. It outlives
// what it is about: for a deleted service it is the tombstone.
type change struct {
	subject  subject
	revision uint64    // of the latest news
	first    uint64    // of the earliest news not yet forgotten
	since    time.Time // when that reached us
	last     time.Time // when the latest reached us
}

// key is the index form of a name. Zero bytes cannot be part of a name, so namespace "a" with
// name "b/c" and namespace "a/b" with name "c" stay apart, and rows sort as Name.Compare does.
func key(n model.Name) string { return n.Namespace + "\x00" + n.Name }

// by indexes rows of type T by a string.
func by[T any](of func(T) string) memdb.Indexer { return stringIndex[T]{of} }

type stringIndex[T any] struct{ of func(T) string }

func (i stringIndex[T]) FromArgs(args ...any) ([]byte, error) {
	s, ok := args[0].(string)
	if len(args) != 1 || !ok {
		return nil, fmt.Errorf("index argument %v", args)
	}
	return []byte(s + "\x00"), nil
}

func (i stringIndex[T]) FromObject(row any) (bool, []byte, error) {
	return true, []byte(i.of(row.(T)) + "\x00"), nil
}

// byRevision indexes changes in the order in which they happened.
type byRevision struct{}

func (byRevision) FromArgs(args ...any) ([]byte, error) {
	r, ok := args[0].(uint64)
	if len(args) != 1 || !ok {
		return nil, fmt.Errorf("index argument %v", args)
	}
	return binary.BigEndian.AppendUint64(nil, r), nil
}

func (byRevision) FromObject(row any) (bool, []byte, error) {
	return true, binary.BigEndian.AppendUint64(nil, row.(change).revision), nil
}

// The helpers below turn memdb's errors into panics: with a constant schema and typed rows
// they can only mean a mistake in this package.

func mustDo(err error) {
	if err != nil {
		panic(err)
	}
}

func must(it memdb.ResultIterator, err error) memdb.ResultIterator {
	mustDo(err)
	return it
}

func first[T any](row any, err error) (T, bool) {
	mustDo(err)
	t, ok := row.(T)
	return t, ok
}

func collect[T any](it memdb.ResultIterator) []T {
	var out []T
	for row := it.Next(); row != nil; row = it.Next() {
		out = append(out, row.(T))
	}
	return out
}
