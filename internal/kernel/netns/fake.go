package netns

import (
	"fmt"
	"sync"
)

// Fake is a machine whose namespaces are names. The zero Fake has none.
type Fake struct {
	mu    sync.Mutex
	paths map[string]bool
	open  int
}

// Add makes a namespace appear at the path.
func (f *Fake) Add(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paths == nil {
		f.paths = map[string]bool{}
	}
	f.paths[path] = true
}

// Remove makes it disappear.
func (f *Fake) Remove(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.paths, path)
}

// Open is as the function Open.
func (f *Fake) Open(path string) (*NS, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.paths[path] {
		return nil, fmt.Errorf("netns %s: %w", path, ErrGone)
	}
	f.open++
	return &NS{handle: -1, path: path, fake: f}, nil
}

// Opened is the number of namespaces that are open: zero when everybody has cleaned up.
func (f *Fake) Opened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

func (f *Fake) closed(*NS) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}
