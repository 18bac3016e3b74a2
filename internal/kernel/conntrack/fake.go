package conntrack

import (
	"slices"
	"sync"
)

// Fake is a flow table in memory. Fields may be set between calls.
type Fake struct {
	mu    sync.Mutex
	Flows []Flow
	Reads int // how often the table was read
}

// CutUDP is Conn.CutUDP.
func (f *Fake) CutUDP(v6 bool, cut func(Flow) bool) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Reads++
	before := len(f.Flows)
	f.Flows = slices.DeleteFunc(f.Flows, func(w Flow) bool { return w.To.Addr().Is6() == v6 && cut(w) })
	return before - len(f.Flows), nil
}
