package vpc

import (
	"net/netip"
	"slices"
	"time"
)

// How long things are remembered.
const (
	// patience is how long the pool must have been too large before something is given back: pods
	// that come and go within it change nothing at the cloud.
	patience = time.Minute
	// batching is how long a small shortage waits for more of its kind while nobody waits for it.
	batching = 5 * time.Second
	// attaching is how often it is asked whether a new interface has appeared.
	attaching = 2 * time.Second
	// refused is how long a place that had nothing is not asked again; it doubles each time.
	refused    = 2 * time.Minute
	refusedMax = 30 * time.Minute
	// remembered is for how long after that it is known how often it was refused.
	remembered = 6 * time.Hour
	// away is the same for the API as a whole. Who waits is to start within seconds when it is back: then
	// it is asked more often, and less so where asking is what it has too much of.
	away            = time.Second
	awayMax         = time.Minute
	awayMaxUrgent   = 5 * time.Second
	deniedMaxUrgent = 15 * time.Second
	// echo is how long the cloud may go on to tell of what it has taken back.
	echo = time.Minute
)

// nowhere is the place of a refusal to attach one more interface.
const nowhere = "instance"

// Memory is what Decide wants to know of its past. It is a value; the zero Memory knows nothing.
type Memory struct {
	Calm     time.Time `json:"calm,omitzero"`      // since when the pool has been larger than the targets ask
	Short    time.Time `json:"short,omitzero"`     // since when it has been smaller
	Failures int       `json:"failures,omitempty"` // one after another, of the API as a whole
	Failure  Failure   `json:"failure,omitempty"`  // the last one
	Call     string    `json:"call,omitempty"`     // of which call; empty: not known
	Failed   time.Time `json:"failed,omitzero"`    // when
	Retry    time.Time `json:"retry,omitzero"`     // nothing is asked before, unless pods wait: RetryAt
	Refusals []Refusal `json:"refusals,omitempty"`
	Leaving  []Leaving `json:"leaving,omitempty"`
}

// Refusal is a place that had nothing to give.
type Refusal struct {
	Place      string    `json:"place"` // a subnet's id; an interface's, or its security groups; or "instance", which has no room for an interface
	OfPrefixes bool      `json:"ofPrefixes,omitempty"`
	Failure    Failure   `json:"failure"`
	Count      int       `json:"count"` // so many were asked for
	Times      int       `json:"times"` // one after another
	Since      time.Time `json:"since,omitzero"`
	Until      time.Time `json:"until"`
}

// Leaving is what is being given back to the cloud. Pods get nothing of it, even if the cloud still
// tells of it: what it tells may be old.
type Leaving struct {
	Interface string         `json:"interface"`
	Whole     bool           `json:"whole,omitempty"` // the interface itself
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	Prefixes  []netip.Prefix `json:"prefixes,omitempty"`
	Since     time.Time      `json:"since"`
}

// Outcome is how an Action went: what it gave, or why not.
type Outcome struct {
	Failure   Failure
	Call      string // of the API, that failed; of what is denied, the permission that is lacking
	Addresses []netip.Addr
	Prefixes  []netip.Prefix
}

// After returns what is to be remembered of an Action.
func (m Memory) After(a Action, o Outcome, now time.Time) Memory {
	m.Refusals, m.Leaving = slices.Clone(m.Refusals), slices.Clone(m.Leaving)
	if a.Verb == SetSecurityGroups && (o.Failure == Denied || o.Failure == Gone || o.Failure == Invalid || o.Failure == Limit) {
		m.refuse(a, o.Failure, now) // who may not do that may still have addresses
		return m
	}
	switch o.Failure {
	case OK:
		m.Failures, m.Failure, m.Call, m.Failed, m.Retry = 0, OK, "", time.Time{}, time.Time{}
		m.Refusals = slices.DeleteFunc(m.Refusals, func(r Refusal) bool { return r.covers(a) })
		m.come(o)
	case SubnetFull, Fragmented, Limit:
		m.refuse(a, o.Failure, now)
		m.stay(a)
	default:
		m.Failures++
		m.Failure, m.Call, m.Failed = o.Failure, o.Call, now
		m.Retry = now.Add(doubled(away, m.Failures, awayMax))
		if o.Failure != Away && o.Failure != Gone { // else it may have been done
			m.stay(a)
		}
	}
	return m
}

// RetryAt is when the API may be asked again after it failed.
func (m Memory) RetryAt(waits bool) time.Time {
	var most time.Duration
	switch m.Failure {
	case Away:
		most = awayMaxUrgent
	case Throttled, Credentials, Denied:
		most = deniedMaxUrgent
	}
	if most == 0 || !waits || m.Failed.IsZero() {
		return m.Retry
	}
	if soon := m.Failed.Add(most); soon.Before(m.Retry) {
		return soon
	}
	return m.Retry
}

// place is where an Action finds what it asks for.
func (a Action) place(f Failure) string {
	switch {
	case a.Verb == SetSecurityGroups:
		return groupsOf(a.Interface)
	case f != Limit:
		return a.Subnet
	case a.Verb == CreateInterface:
		return nowhere
	}
	return a.Interface
}

// ofPrefixes tells whether a refusal is of prefixes alone; a limit is for both.
func (a Action) ofPrefixes(f Failure) bool {
	return f != Limit && (a.OfPrefixes || a.Verb == AssignPrefixes)
}

// covers tells whether a success of the Action makes the refusal void.
func (r Refusal) covers(a Action) bool {
	same := a.Verb == CreateInterface || a.Verb == AssignAddresses || a.Verb == AssignPrefixes || a.Verb == SetSecurityGroups
	return same && r.Place == a.place(r.Failure) && r.OfPrefixes == a.ofPrefixes(r.Failure) && a.Count >= r.Count
}

// bars tells whether a refusal keeps pods from addresses.
func (r Refusal) bars() bool {
	return r.Failure == SubnetFull || r.Failure == Fragmented || r.Failure == Limit
}

func (m *Memory) refuse(a Action, f Failure, now time.Time) {
	r := Refusal{Place: a.place(f), OfPrefixes: a.ofPrefixes(f), Failure: f, Count: a.Count, Times: 1, Since: now, Until: now.Add(refused)}
	i := slices.IndexFunc(m.Refusals, func(o Refusal) bool { return o.Place == r.Place && o.OfPrefixes == r.OfPrefixes })
	if i < 0 {
		m.Refusals = append(m.Refusals, r)
		return
	}
	old := m.Refusals[i]
	if r.Times, r.Until = old.Times, old.Until; !old.Until.After(now) { // not just fewer of the same
		r.Times++
		r.Until = now.Add(doubled(refused, r.Times, refusedMax))
	}
	m.Refusals[i] = r
}

// come takes what the cloud has just given out of what is leaving.
func (m *Memory) come(o Outcome) {
	for i, l := range m.Leaving {
		if l.Whole {
			continue
		}
		m.Leaving[i].Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(a netip.Addr) bool { return slices.Contains(o.Addresses, a) })
		m.Leaving[i].Prefixes = slices.DeleteFunc(slices.Clone(l.Prefixes), func(p netip.Prefix) bool { return slices.Contains(o.Prefixes, p) })
	}
	m.Leaving = slices.DeleteFunc(m.Leaving, func(l Leaving) bool { return !l.Whole && len(l.Addresses)+len(l.Prefixes) == 0 })
}

// stay takes back that what the Action was to take away is leaving.
func (m *Memory) stay(a Action) {
	m.Leaving = slices.DeleteFunc(m.Leaving, func(l Leaving) bool {
		return l.Interface == a.Interface && l.Whole == (a.Verb == DeleteInterface) &&
			slices.Equal(l.Addresses, a.Addresses) && slices.Equal(l.Prefixes, a.Prefixes)
	})
}

// refusedOnce returns what the place was refused last, be it long ago. One that has not a single address
// has no prefix either.
func (m Memory) refusedOnce(place string, ofPrefixes bool) (Refusal, bool) {
	i := slices.IndexFunc(m.Refusals, func(r Refusal) bool {
		return r.Place == place && (r.OfPrefixes == ofPrefixes || ofPrefixes && r.Count <= 1)
	})
	if i < 0 {
		return Refusal{}, false
	}
	return m.Refusals[i], true
}

// refusal returns what keeps the place from being asked now.
func (m Memory) refusal(place string, ofPrefixes bool, now time.Time) (Refusal, bool) {
	m.Refusals = slices.DeleteFunc(slices.Clone(m.Refusals), func(r Refusal) bool { return !r.Until.After(now) })
	return m.refusedOnce(place, ofPrefixes)
}

// forget drops what is too old to matter.
func (m Memory) forget(now time.Time) Memory {
	m.Refusals = slices.DeleteFunc(slices.Clone(m.Refusals), func(r Refusal) bool { return now.Sub(r.Until) > remembered })
	m.Leaving = slices.DeleteFunc(slices.Clone(m.Leaving), func(l Leaving) bool { return now.Sub(l.Since).Abs() >= echo })
	return m
}

// doubled is the n-th wait in a row.
func doubled(first time.Duration, n int, most time.Duration) time.Duration {
	for d := first; d < most; d *= 2 {
		if n--; n <= 0 {
			return d
		}
	}
	return most
}
