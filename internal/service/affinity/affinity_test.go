package affinity

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

const s = time.Second

var comparable = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func backend(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 80)
}

func client(i int) Client {
	return Client{service.Key{Addr: netip.MustParseAddrPort("10.100.0.1:80"), Protocol: model.TCP}, netip.AddrFrom4([4]byte{10, 2, 0, byte(i)})}
}

// entry is one with 20 s of remembering; endpoint 0: a client asked.
func entry(of, id, endpoint int, until, used time.Duration) Entry {
	e := Entry{Client: client(of), ID: uint32(id), Timeout: 20 * s, Until: until, Used: used}
	if endpoint > 0 {
		e.Backend = backend(endpoint)
	}
	return e
}

func former(e Entry) Entry {
	e.Former = true
	return e
}

func TestSync(t *testing.T) {
	const now = 100 * s
	note := func(endpoint int, left time.Duration) map[Client]Note {
		return map[Client]Note{client(1): {backend(endpoint), left}}
	}
	renewal := func(endpoint int, left time.Duration, there bool) []Renewal {
		return []Renewal{{client(1), Note{backend(endpoint), left}, there}}
	}
	for name, c := range map[string]struct {
		notes   map[Client]Note
		entries []Entry
		want    Changes
	}{
		"nothing": {},
		"who is not at the socket is nothing to it": {notes: note(1, 5*s)},
		"who asked is told": {note(1, 5*s), []Entry{entry(1, 1, 0, 0, 0)},
			Changes{ToSocket: []Entry{entry(1, 1, 1, 105*s, 0)}}},
		"who asked and is not known is forgotten": {nil, []Entry{entry(1, 1, 0, 0, 0)},
			Changes{Drop: []Entry{entry(1, 1, 0, 0, 0)}}},
		"a note that has just ended is none": {note(1, 0), []Entry{entry(1, 1, 0, 0, 0)},
			Changes{Drop: []Entry{entry(1, 1, 0, 0, 0)}}},
		"all is well": {note(1, 15*s), []Entry{entry(1, 1, 1, 115*s, 90*s)}, Changes{}},
		"used since, so that the note begins anew": {note(1, 15*s), []Entry{entry(1, 1, 1, 115*s, 99*s)},
			Changes{ToNFT: renewal(1, 20*s, true), ToSocket: []Entry{entry(1, 1, 1, 120*s, 99*s)}}},
		"used at one of two frontends": {note(1, 15*s), []Entry{entry(1, 2, 1, 115*s, 99*s), entry(1, 1, 1, 115*s, 0)},
			Changes{ToNFT: renewal(1, 20*s, true), ToSocket: []Entry{entry(1, 1, 1, 120*s, 0), entry(1, 2, 1, 120*s, 99*s)}}},
		"renewed by packets": {note(1, 19*s), []Entry{entry(1, 1, 1, 105*s, 80*s)},
			Changes{ToSocket: []Entry{entry(1, 1, 1, 119*s, 80*s)}}},
		"nft has another, and is right": {note(2, 15*s), []Entry{entry(1, 1, 1, 118*s, 99*s)},
			Changes{ToSocket: []Entry{entry(1, 1, 2, 115*s, 99*s)}}},
		"nft has none any more, we have": {nil, []Entry{entry(1, 1, 1, 95*s, 90*s)},
			Changes{ToNFT: renewal(1, 10*s, false), ToSocket: []Entry{entry(1, 1, 1, 110*s, 90*s)}}},
		"the one that holds longest is written back": {nil, []Entry{entry(1, 2, 2, 95*s, 85*s), entry(1, 1, 1, 95*s, 90*s), entry(1, 3, 0, 0, 0)},
			Changes{ToNFT: renewal(1, 10*s, false), ToSocket: []Entry{
				entry(1, 1, 1, 110*s, 90*s), entry(1, 2, 1, 110*s, 85*s), entry(1, 3, 1, 110*s, 0)}}},
		"used until an endpoint left": {note(1, 15*s), []Entry{former(entry(1, 1, 1, 115*s, 99*s)), entry(1, 2, 0, 0, 0)},
			Changes{ToNFT: renewal(1, 20*s, true), ToSocket: []Entry{entry(1, 2, 1, 120*s, 0)}, Drop: []Entry{former(entry(1, 1, 1, 115*s, 99*s))}}},
		"past its time in both": {nil, []Entry{entry(1, 1, 1, 100*s, 80*s)},
			Changes{Drop: []Entry{entry(1, 1, 1, 100*s, 80*s)}}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				if diff := cmp.Diff(c.want, Sync(c.notes, c.entries, now), comparable, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Error(diff)
				}
				slices.Reverse(c.entries) // the order is nothing
			}
		})
	}
}

// machine is both paths, as far as they remember: nft's rules, the program of the socket path, and
// the time.
type machine struct {
	*rand.Rand
	now       time.Duration
	timeout   time.Duration
	endpoints []int
	id        uint32 // another one when an endpoint has left
	notes     map[Client]machineNote
	copies    map[machineKey]Entry         // without Used
	uses      map[machineKey]time.Duration // which only sockets write
	looks     int
	broken    error
	refuse    bool
}

type machineNote struct {
	backend netip.AddrPort
	ends    time.Duration
}

type machineKey struct {
	id     uint32
	client Client
}

func newMachine(seed uint64, timeout time.Duration) *machine {
	return &machine{Rand: rand.New(rand.NewPCG(seed, 0)), now: 1000 * s, timeout: timeout, endpoints: []int{1, 2, 3, 4}, id: 1,
		notes: map[Client]machineNote{}, copies: map[machineKey]Entry{}, uses: map[machineKey]time.Duration{}}
}

func (m *machine) serves(b netip.AddrPort) bool {
	return slices.ContainsFunc(m.endpoints, func(e int) bool { return backend(e) == b })
}

// byNFT is what rules_memory.go does with a first packet.
func (m *machine) byNFT(c Client) netip.AddrPort {
	n, ok := m.notes[c]
	if !ok || n.ends <= m.now || !m.serves(n.backend) {
		n.backend = backend(m.endpoints[m.IntN(len(m.endpoints))])
	}
	n.ends = m.now + m.timeout
	m.notes[c] = n
	return n.backend
}

// bySocket is what socket.c does with a connect: if it does not lead, nft sees a packet.
func (m *machine) bySocket(c Client) netip.AddrPort {
	k := machineKey{m.id, c}
	e, ok := m.copies[k]
	if !ok {
		m.copies[k] = Entry{Client: c, ID: m.id, Timeout: m.timeout}
	}
	if !e.known() || m.now >= e.Safe() && (m.now < e.Until || m.now >= m.uses[k]+e.Timeout) {
		return m.byNFT(c)
	}
	m.uses[k] = m.now
	return e.Backend
}

func (m *machine) Now() (time.Duration, error) { return m.now, nil }

func (m *machine) Notes() (map[Client]Note, error) {
	m.looks++
	out := map[Client]Note{}
	for c, n := range m.notes {
		if n.ends > m.now {
			out[c] = Note{n.backend, n.ends - m.now}
		}
	}
	return out, m.broken
}

func (m *machine) Renew(list []Renewal) (map[Client]bool, error) {
	refused := map[Client]bool{}
	for _, r := range list {
		n, there := m.notes[r.Client]
		there = there && n.ends > m.now
		if there != r.There || there && n.backend != r.Backend || m.refuse {
			refused[r.Client] = true
			continue
		}
		m.notes[r.Client] = machineNote{r.Backend, m.now + r.Left}
	}
	return refused, m.broken
}

func (m *machine) Remembered() ([]Entry, error) {
	var out []Entry
	for k, e := range m.copies {
		if e.Former = k.id != m.id; e.Former && !m.serves(e.Backend) {
			delete(m.copies, k)
			delete(m.uses, k)
			continue
		}
		e.Used = m.uses[k]
		out = append(out, e)
	}
	return out, nil
}

func (m *machine) Remember(keep, drop []Entry) error {
	for _, e := range keep {
		if e.ID == m.id {
			k := machineKey{e.ID, e.Client}
			e.Used = 0
			m.copies[k] = e
		}
	}
	for _, e := range drop {
		delete(m.copies, machineKey{e.ID, e.Client})
		delete(m.uses, machineKey{e.ID, e.Client})
	}
	return nil
}

// slow is a machine on which time goes by, and clients come, between any two steps of a pass.
type slow struct {
	*machine
	meanwhile func()
}

func (m slow) Notes() (map[Client]Note, error) {
	m.meanwhile()
	defer m.meanwhile()
	return m.machine.Notes()
}

func (m slow) Renew(list []Renewal) (map[Client]bool, error) {
	m.meanwhile()
	defer m.meanwhile()
	return m.machine.Renew(list)
}

const steps = 20_000

// A client that comes back in time meets the same endpoint by whatever path, unless that has left.
func TestOneEndpointForEachClient(t *testing.T) {
	for seed := range uint64(20) {
		timeout := []time.Duration{Least, 30 * s, 3 * time.Hour}[seed%3]
		m := newMachine(seed, timeout)
		type visit struct {
			at      time.Duration
			backend netip.AddrPort
		}
		last := map[Client]visit{}
		led := 0
		come := func() {
			c := client(m.IntN(5))
			var got netip.AddrPort
			if m.IntN(3) > 0 {
				noted := m.notes[c].ends
				got = m.bySocket(c)
				if m.notes[c].ends == noted {
					led++
				}
			} else {
				got = m.byNFT(c)
			}
			was, ok := last[c]
			if ok && m.now < was.at+timeout && got != was.backend {
				t.Fatalf("seed %d, timeout %s: %s at %s, %s later at %s", seed, timeout, c.Addr, was.backend, m.now-was.at, got)
			}
			last[c] = visit{m.now, got}
		}
		k := NewKeeper(slow{m, func() {
			m.now += time.Duration(m.IntN(int(10 * time.Millisecond)))
			if m.IntN(2) == 0 {
				come()
			}
		}}, m)
		passed := m.now
		for range steps {
			step := time.Duration(m.ExpFloat64() * float64(s))
			if m.IntN(20) == 0 {
				step = time.Duration(m.Float64() * 1.2 * float64(timeout))
			}
			for end := m.now + step; m.now < end; { // passes come every two seconds, give or take one
				m.now = max(m.now, min(end, passed+time.Duration(float64(s)*(1+2*m.Float64()))))
				if m.now < end {
					passed = m.now
					if err := k.Pass(); err != nil {
						t.Fatal(err)
					}
					end = max(end, m.now)
				}
				if timeout > time.Hour && m.now < end-10*time.Minute && !unsettledNow(m) {
					m.now, passed = end-time.Minute, end-time.Minute
				}
			}
			switch m.IntN(50) {
			case 0: // an endpoint leaves
				if len(m.endpoints) > 1 {
					i := m.IntN(len(m.endpoints))
					gone := backend(m.endpoints[i])
					m.endpoints = slices.Delete(m.endpoints, i, i+1)
					m.id++
					for c, v := range last {
						if v.backend == gone {
							delete(last, c)
						}
					}
				}
			case 1: // one comes, or comes back
				if e := 1 + m.IntN(6); !slices.Contains(m.endpoints, e) {
					m.endpoints = append(m.endpoints, e)
				}
			default:
				come()
			}
		}
		if led < steps/20 {
			t.Errorf("seed %d, timeout %s: sockets were led %d times", seed, timeout, led)
		}
	}
}

func unsettledNow(m *machine) bool {
	list, _ := m.Remembered()
	return unsettled(list, m.now)
}

// When the agent is gone, the socket path goes on with what it has as long as a client comes by that alone.
func TestWithoutAnAgent(t *testing.T) {
	m := newMachine(1, 20*s)
	k := NewKeeper(m, m)
	first := m.bySocket(client(1))
	if err := k.Pass(); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		m.now += time.Duration(i%19) * s
		if got := m.bySocket(client(1)); got != first {
			t.Fatalf("at %s: %s, want %s", m.now, got, first)
		}
	}
	m.notes = map[Client]machineNote{}
	if err := k.Pass(); err != nil || m.notes[client(1)].backend != first {
		t.Errorf("the next agent: %v, nft has %v, want %v", err, m.notes, first)
	}
}

func TestKeeperLooksOnlyWhenItHasTo(t *testing.T) {
	m := newMachine(1, 20*s)
	k := NewKeeper(m, m)
	pass := func(what string, looks int) {
		t.Helper()
		if err := k.Pass(); err != nil || m.looks != looks {
			t.Errorf("%s: %v, looked %d times, want %d", what, err, m.looks, looks)
		}
	}
	pass("nobody", 0)
	m.byNFT(client(1))
	pass("nobody at the socket", 0)
	m.bySocket(client(1))
	pass("one who asked", 1)
	if k.Size() != 1 {
		t.Errorf("%d entries", k.Size())
	}
	pass("nothing new", 1)
	m.now += s
	m.bySocket(client(1))
	pass("one who was led", 2)
	m.now += 11 * s
	pass("the last while", 3)
	m.now += 10 * s
	pass("past", 4)
	if len(m.copies) != 0 {
		t.Errorf("left: %v", m.copies)
	}
	pass("nobody again", 4)
	if k.Size() != 0 {
		t.Errorf("%d entries", k.Size())
	}
}

func TestKeeperWhenThingsGoWrong(t *testing.T) {
	m := newMachine(1, 20*s)
	k := NewKeeper(m, m)
	m.bySocket(client(1))
	m.broken = errors.New("busy")
	if err := k.Pass(); !errors.Is(err, m.broken) {
		t.Errorf("error %v", err)
	}
	m.broken = nil
	if err := k.Pass(); err != nil {
		t.Fatal(err)
	}
	m.now += 5 * s
	m.bySocket(client(1))
	before := m.copies[machineKey{1, client(1)}]
	m.refuse = true
	if err := k.Pass(); err != nil || m.copies[machineKey{1, client(1)}] != before {
		t.Errorf("%v: a note was not renewed, and its copy is %v, was %v", err, m.copies, before)
	}
}

// A look that is slow makes a pause.
func TestKeeperPauses(t *testing.T) {
	m := newMachine(1, 20*s)
	k := NewKeeper(slow{m, func() { m.now += 100 * time.Millisecond }}, m)
	m.bySocket(client(1))
	for _, c := range []struct {
		wait  time.Duration
		looks int
	}{{0, 1}, {s, 1}, {s, 2}} {
		m.now += c.wait
		m.bySocket(client(2 + m.looks))
		if err := k.Pass(); err != nil || m.looks != c.looks {
			t.Errorf("after %s: %v, looked %d times, want %d", c.wait, err, m.looks, c.looks)
		}
	}
}
