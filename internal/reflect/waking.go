package reflect

import "k8s.io/client-go/tools/cache"

// WakingStore calls Wake after every change.
type WakingStore struct {
	cache.Store
	Wake func()
}

// Add is as cache.Store's.
func (s WakingStore) Add(o any) error { defer s.Wake(); return s.Store.Add(o) }

// Update is as cache.Store's.
func (s WakingStore) Update(o any) error { defer s.Wake(); return s.Store.Update(o) }

// Delete is as cache.Store's.
func (s WakingStore) Delete(o any) error { defer s.Wake(); return s.Store.Delete(o) }

// Replace is as cache.Store's.
func (s WakingStore) Replace(list []any, version string) error {
	defer s.Wake()
	return s.Store.Replace(list, version)
}
