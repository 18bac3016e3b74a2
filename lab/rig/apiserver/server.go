// Package apiserver is a Kubernetes API server that says what a script tells it, and nothing else:
// what a node's agent or proxy lists and watches, from memory, encoded before anybody asks. With it
// dataplanes are measured without etcd, controllers and other nodes, each against the same words.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Written tells that a change was sent to somebody who watches.
type Written struct {
	Resource        string // "discovery.k8s.io/v1/endpointslices"
	Namespace, Name string
	Version         uint64
	At              time.Time // just before its bytes were handed to the kernel
}

// Options of a server. The zero value is good.
type Options struct {
	// Written is called after each change that was sent, from the goroutine that sent it.
	Written func(Written)
}

// Server is a scripted API server. Its methods can be called at any time, by anybody.
type Server struct {
	opts   Options
	tables map[resource]*table
	http   http.Server
	ctx    context.Context // of all watches
	stop   context.CancelFunc

	mu      sync.Mutex
	version uint64
}

// New returns a server of the snapshot's objects; nil: of none.
func New(s *Snapshot, o Options) *Server {
	out := &Server{opts: o, tables: map[resource]*table{}, version: first}
	for r := range lists {
		var objects []*event
		if s != nil {
			objects = s.tables[r]
		}
		out.tables[r] = newTable(objects)
	}
	out.ctx, out.stop = context.WithCancel(context.Background())
	out.http.Handler = out
	return out
}

// Serve answers at the listener until Close, and returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends every connection and every Serve.
func (s *Server) Close() error {
	s.stop()
	return s.http.Close()
}

// Set makes an object what is given, new or not, and returns its version.
func (s *Server) Set(o apiruntime.Object) (uint64, error) { return s.change(watch.Modified, o) }

// Delete takes an object away and returns the version of that; without such an object it does nothing.
func (s *Server) Delete(o apiruntime.Object) (uint64, error) { return s.change(watch.Deleted, o) }

func (s *Server) change(kind watch.EventType, o apiruntime.Object) (uint64, error) {
	r, err := resourceOf(o)
	if err != nil {
		return 0, fmt.Errorf("scripted API server: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := newEvent(kind, o, s.version+1)
	if err != nil {
		return 0, fmt.Errorf("scripted API server: %w", err)
	}
	t := s.tables[r]
	if t.get(e.key) == nil {
		if kind == watch.Deleted {
			return s.version, nil
		}
		e.kind = watch.Added
	}
	s.version++
	t.put(e)
	return s.version, nil
}
