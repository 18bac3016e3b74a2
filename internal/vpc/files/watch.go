package files

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// Watch tells when somebody has replaced one of a node's files.
type Watch struct {
	// Changed gets a value some time after each change. Changes that come close after one another may be
	// told as one.
	Changed <-chan struct{}
	watcher *fsnotify.Watcher
}

// Follow watches the files of these names. What was changed before it returns is not told: look first
// after it has.
func Follow(path string, names ...string) (*Watch, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if err := watcher.Add(path); err != nil {
		_ = watcher.Close()
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	changed := make(chan struct{}, 1)
	go func() {
		tell := func() {
			select {
			case changed <- struct{}{}:
			default: // it is told already
			}
		}
		for {
			select {
			case e, open := <-watcher.Events:
				if !open {
					return
				}
				if slices.Contains(names, filepath.Base(e.Name)) {
					tell()
				}
			case _, open := <-watcher.Errors:
				if !open {
					return
				}
				tell() // something was lost: whoever looks again misses nothing
			}
		}
	}()
	return &Watch{changed, watcher}, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.watcher.Close() }
