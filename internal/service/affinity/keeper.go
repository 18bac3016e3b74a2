package affinity

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Notes are nft's memory.
type Notes interface {
	// Notes returns all of it.
	Notes() (map[Client]Note, error)
	// Renew writes notes, and returns the clients that get none: theirs has changed meanwhile, its endpoint
	// has left, or there is no room.
	Renew([]Renewal) (refused map[Client]bool, err error)
}

// Copies are the socket path's memory.
type Copies interface {
	// Now is the time by which entries are.
	Now() (time.Duration, error)
	// Remembered returns the entries of frontends that are there, after it has forgotten all others, and
	// sees to it that clients on this node are known by their address.
	Remembered() ([]Entry, error)
	// Remember writes entries, if their frontend still has their number and endpoint, and deletes some.
	Remember(keep, drop []Entry) error
}

// Between two looks at nft's notes, which are as many as all clients of the node's Services, is at
// least so many times what one costs. (262,144, which is as many as there is room for, take some 0.3 s: even
// then the pause is shorter than the last while of the shortest time of remembering.)
const share = 10

// Keeper carries out what Sync decides, pass after pass. One must not run twice at once.
type Keeper struct {
	notes  Notes
	copies Copies
	next   time.Duration // no look before
	size   atomic.Int64
}

// Size is how many entries there were at the last pass. It may be asked for at any time.
func (k *Keeper) Size() int { return int(k.size.Load()) }

// NewKeeper returns one for two memories.
func NewKeeper(n Notes, c Copies) *Keeper { return &Keeper{notes: n, copies: c} }

// Pass makes both memories one again, where they have to be looked at. It is meant to be called every
// two seconds.
func (k *Keeper) Pass() error {
	entries, err := k.copies.Remembered()
	k.size.Store(int64(len(entries)))
	if err != nil || len(entries) == 0 {
		return err
	}
	now, err := k.copies.Now()
	if err != nil {
		return fmt.Errorf("affinity: %w", err)
	}
	if now < k.next || !unsettled(entries, now) {
		return nil
	}
	notes, err := k.notes.Notes()
	if err != nil {
		return err
	}
	done, err := k.copies.Now()
	if err != nil {
		return fmt.Errorf("affinity: %w", err)
	}
	k.next = done + share*(done-now)
	// What is left of a note was so much at some moment since now: counted from now, it ends too early, if anything.
	change := Sync(notes, entries, now)
	refused, err := k.notes.Renew(change.ToNFT)
	if err != nil {
		return err
	}
	return k.copies.Remember(without(change.ToSocket, refused), change.Drop)
}

func unsettled(entries []Entry, now time.Duration) bool {
	for _, e := range entries {
		if e.unsettled(now) {
			return true
		}
	}
	return false
}

// without leaves out the entries of some clients.
func without(list []Entry, clients map[Client]bool) []Entry {
	if len(clients) == 0 {
		return list
	}
	var out []Entry
	for _, e := range list {
		if !clients[e.Client] {
			out = append(out, e)
		}
	}
	return out
}
