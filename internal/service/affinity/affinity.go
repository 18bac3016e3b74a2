// Package affinity keeps two memories of clients as one. Who is remembered, and with which endpoint, is
// decided by packets in the nft path alone; the socket path has copies of its notes, leads by them, and
// tells when it did. It is pure: both memories are behind interfaces.
//
// The one thing that must never be is a note that ends while a copy of it still leads: nft would draw
// another endpoint for the same client. So a copy leads freely only until a while before its note ends,
// which is time for at least two passes. In that last while the client is left to nft, where the
// note still is, and is renewed by the packet.
package affinity

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/service"
)

const (
	// Least is the shortest time of remembering for which the socket path has copies. With less there
	// would be no two passes before the end.
	Least = 10 * time.Second
	// lastWhile is at most so long, and at most half of the time of remembering.
	lastWhile = time.Minute
	// grain is a difference of ends that is not worth a write.
	grain = 500 * time.Millisecond
)

// Client is an address that uses a group of frontends.
type Client struct {
	Group service.Key
	Addr  netip.Addr
}

// Compare orders clients.
func (c Client) Compare(o Client) int {
	return cmp.Or(c.Group.Addr.Compare(o.Group.Addr), cmp.Compare(c.Group.Protocol, o.Group.Protocol), c.Addr.Compare(o.Addr))
}

// Note is where nft sends a client, and for how long still if it does not come before.
type Note struct {
	Backend netip.AddrPort
	Left    time.Duration
}

// Entry is what the socket path has of a client at one frontend. Times are those of the machine's
// clock that never goes back.
type Entry struct {
	Client
	// ID is the socket path's number of the frontend. It is another one once an endpoint has left.
	ID uint32
	// Former tells that it is another one already: nobody is led by the entry any more.
	Former bool
	// Timeout is how long clients are remembered.
	Timeout time.Duration
	// Backend is not valid where a client asked that was not known.
	Backend netip.AddrPort
	// Until is when nft's note ends, as far as it was told.
	Until time.Duration
	// Used is when a socket was last led by it.
	Used time.Duration
}

// Safe is until when sockets are led freely. From then to Until they are left to nft. After Until, which
// only comes if nobody looked for long, what the socket path remembers is all that is left.
func (e Entry) Safe() time.Duration { return e.Until - min(e.Timeout/2, lastWhile) }

// end is when the client is forgotten, by this entry alone.
func (e Entry) end() time.Duration { return max(e.Until, e.Used+e.Timeout) }

func (e Entry) known() bool { return e.Backend.IsValid() }

// unsettled tells that nft's notes have to be looked at on behalf of the entry.
func (e Entry) unsettled(now time.Duration) bool {
	return !e.known() || e.Former || e.Used+e.Timeout > e.Until || now >= e.Safe()
}

// Renewal is a note to be written.
type Renewal struct {
	Client
	Note
	// There tells that there is such a note already, with the same endpoint: its time begins anew.
	There bool
}

// Changes are what makes two memories one.
type Changes struct {
	ToNFT    []Renewal // by client
	ToSocket []Entry
	Drop     []Entry
}

// Sync decides what has to change in either memory. Where they contradict each other nft is right.
func Sync(notes map[Client]Note, entries []Entry, now time.Duration) Changes {
	of := map[Client][]Entry{}
	for _, e := range entries {
		of[e.Client] = append(of[e.Client], e)
	}
	var out Changes
	for c, own := range of {
		note, there := notes[c]
		there = there && note.Left > 0
		if !there {
			lasting, ok := last(own, now)
			if !ok {
				out.Drop = append(out.Drop, own...)
				continue
			}
			note = Note{lasting.Backend, lasting.end() - now}
		}
		if longer, used := renewed(note, own, now); used || !there {
			note = longer
			out.ToNFT = append(out.ToNFT, Renewal{c, note, there})
		}
		for _, e := range own {
			if e.Former { // what it knew is known now
				out.Drop = append(out.Drop, e)
				continue
			}
			if end := now + note.Left; e.Backend != note.Backend || (end-e.Until).Abs() > grain {
				e.Backend, e.Until = note.Backend, end
				out.ToSocket = append(out.ToSocket, e)
			}
		}
	}
	slices.SortFunc(out.ToNFT, func(a, b Renewal) int { return a.Client.Compare(b.Client) })
	slices.SortFunc(out.ToSocket, compare)
	slices.SortFunc(out.Drop, compare)
	return out
}

// last returns the entry that holds for longest, of those that still hold.
func last(list []Entry, now time.Duration) (Entry, bool) {
	var out Entry
	for _, e := range list {
		if !e.known() || e.end() <= now {
			continue
		}
		if !out.known() || cmp.Or(cmp.Compare(e.end(), out.end()), out.Backend.Compare(e.Backend)) > 0 {
			out = e
		}
	}
	return out, out.known()
}

// renewed gives a note all of its time again if sockets were led by it since that began. (Counted from
// now: they may have been led again since the entries were read.)
func renewed(n Note, list []Entry, now time.Duration) (Note, bool) {
	used := false
	for _, e := range list {
		if e.Backend == n.Backend && e.Used+e.Timeout > now+n.Left {
			n.Left, used = e.Timeout, true
		}
	}
	return n, used
}

func compare(a, b Entry) int { return cmp.Or(a.Client.Compare(b.Client), cmp.Compare(a.ID, b.ID)) }
