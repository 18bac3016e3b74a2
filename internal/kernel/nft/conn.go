package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// A batch must fit the socket's send buffer whole: 100,000 services are about 40 MB.
	sendBuffer = 128 << 20
	// An answer comes for each message that is refused, and all of them wait while we send.
	receiveBuffer = 16 << 20
	// keep is how big a buffer for messages may be that is kept for the next batch.
	keep = 64 << 10
	// The kernel has answered when it has taken the messages. Should it not, we do not hang.
	patience = 60 * time.Second
	// A set that is in motion is read again. It comes to rest within milliseconds.
	attempts = 50
)

// Conn reaches nf_tables of one network namespace. It keeps one socket: closing one makes the
// kernel wait for everything that the last transaction deleted, some 10 ms. After an error it
// takes a new one, so that a late answer can never be taken for another's. It is safe for
// concurrent use.
type Conn struct {
	netns int

	mu      sync.Mutex
	sock    *netlink.Conn // nil while there is none
	raw     syscall.RawConn
	seq     uint32 // of the last message that was sent
	in, out []byte // buffers for messages
}

// Dial returns a door to the network namespace that the descriptor netns refers to, or, if that
// is 0, to the one in which its first call is made. Nothing is opened yet.
func Dial(netns int) *Conn { return &Conn{netns: netns} }

// Close gives the socket back. The door can still be used: it opens another.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hangUp()
}

func (c *Conn) hangUp() error {
	if c.sock == nil {
		return nil
	}
	sock := c.sock
	c.sock, c.raw = nil, nil
	return sock.Close()
}

// with runs f, alone, on the socket.
func (c *Conn) with(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sock == nil {
		if err := c.open(); err != nil {
			return fmt.Errorf("nft socket: %w", errors.Join(err, c.hangUp()))
		}
	}
	err := c.sock.SetDeadline(time.Now().Add(patience))
	if err == nil {
		err = f()
	}
	if err != nil {
		return errors.Join(err, c.hangUp())
	}
	return nil
}

func (c *Conn) open() (err error) {
	if c.sock, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: c.netns}); err != nil {
		return err
	}
	if c.raw, err = c.sock.SyscallConn(); err != nil {
		return err
	}
	return errors.Join(
		c.sock.SetWriteBuffer(sendBuffer), c.sock.SetReadBuffer(receiveBuffer),
		// A refusal shall not bring the refused message back: that can be 64 KiB of elements.
		c.sock.SetOption(netlink.CapAcknowledge, true),
	)
}

// Commit makes the changes of the batch in one transaction. An error names the change that the
// kernel refused first.
func (c *Conn) Commit(b *Batch) error {
	if b.Len() == 0 {
		return nil
	}
	if err := c.with(func() error { return c.commit(b) }); err != nil {
		return fmt.Errorf("nft table %s: %w", b.table, err)
	}
	return nil
}

func (c *Conn) commit(b *Batch) error {
	e := encoder{b: slices.Grow(c.out[:0], b.size*elementSize), seq: c.seq, family: b.table.Family}
	e.bracket(unix.NFNL_MSG_BATCH_BEGIN)
	first := e.seq
	ends := make([]uint32, len(b.ops)) // the number of each change's last message, from 1
	for i, o := range b.ops {
		if err := e.encode(b.table.Name, o); err != nil {
			return err
		}
		ends[i] = e.seq - first
	}
	e.acknowledge()
	e.bracket(unix.NFNL_MSG_BATCH_END)
	c.seq = e.seq
	if c.out = e.b; cap(c.out) > keep {
		c.out = nil
	}
	if err := c.send(e.b); err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	return c.verdict(b.ops, first, ends)
}

// verdict waits for the kernel's answer. It reports all that it refused in the order of the
// messages, and at last answers the last message, which alone asks for it. What makes the
// transaction as a whole fail it reports about the message that began it, and before the others.
func (c *Conn) verdict(ops []op, first uint32, ends []uint32) error {
	return c.receive(func(m message) (last bool, err error) {
		n := m.seq - first
		if m.kind != unix.NLMSG_ERROR || n > ends[len(ends)-1] {
			return false, fmt.Errorf("transaction: answer %d of kind %d", n, m.kind)
		}
		if err = errno(m.body); err == nil {
			return n == ends[len(ends)-1], nil
		}
		if n == 0 {
			return true, fmt.Errorf("transaction: %w", err)
		}
		at, _ := slices.BinarySearch(ends, n)
		return true, fmt.Errorf("%s: %w", ops[at], err)
	})
}

// Generation returns the number of transactions that the namespace has seen, ours and others',
// modulo 2^32. Elements that packets add do not count.
func (c *Conn) Generation() (id uint32, err error) {
	err = c.with(func() error {
		there := false
		err := c.ask(unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, unix.AF_UNSPEC, nil, func(attrs []byte) {
			if v := at(attrs, unix.NFTA_GEN_ID); len(v) == 4 {
				id, there = binary.BigEndian.Uint32(v), true
			}
		})
		if err == nil && !there {
			err = errors.New("no number in the answer")
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("nft generation: %w", err)
	}
	return id, nil
}

// Read returns the contents of the table, and false if there is no such table.
func (c *Conn) Read(t Table) (contents Contents, there bool, err error) {
	err = c.with(func() error {
		contents, there, err = c.read(t)
		return err
	})
	if err != nil {
		return Contents{}, false, fmt.Errorf("nft table %s: %w", t, err)
	}
	return contents, there, nil
}

func (c *Conn) read(t Table) (out Contents, there bool, err error) {
	err = c.dump(unix.NFT_MSG_GETTABLE, t.Family, nil, func(attrs []byte) {
		there = there || text(at(attrs, unix.NFTA_TABLE_NAME)) == t.Name
	})
	if err != nil {
		return Contents{}, false, fmt.Errorf("tables: %w", err)
	}
	if !there {
		return Contents{}, false, nil
	}
	out = Contents{Chains: map[string][]string{}, Sets: map[string]bool{}}
	for _, list := range []struct {
		name  string
		kind  uint16
		table uint16 // the attribute that names an item's table
		enter func(attrs []byte)
	}{
		{"sets", unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, func(attrs []byte) {
			out.Sets[text(at(attrs, unix.NFTA_SET_NAME))] = true
		}},
		{"chains", unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, func(attrs []byte) {
			out.Chains[text(at(attrs, unix.NFTA_CHAIN_NAME))] = nil
		}},
		{"rules", unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, func(attrs []byte) {
			chain := text(at(attrs, unix.NFTA_RULE_CHAIN))
			out.Chains[chain] = append(out.Chains[chain], comment(at(attrs, unix.NFTA_RULE_USERDATA)))
		}},
	} {
		// Not every kernel leaves out other tables when it is asked for one: all look at them.
		of := func(e *encoder) { e.text(list.table, t.Name) }
		err := c.dump(list.kind, t.Family, of, func(attrs []byte) {
			if text(at(attrs, list.table)) == t.Name {
				list.enter(attrs)
			}
		})
		if err != nil {
			return Contents{}, false, fmt.Errorf("%s: %w", list.name, err)
		}
	}
	return out, true, nil
}

// Elements returns the elements of a set or map.
func (c *Conn) Elements(t Table, s Set) ([]Element, error) {
	var out []Element
	err := c.with(func() (err error) {
		for range attempts {
			if out, err = c.elements(t, s.Name); !errors.Is(err, errMoving) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nft table %s: set %s: %w", t, s.Name, err)
	}
	return out, nil
}

// elements reads a set once. While the kernel moves a set to a bigger hash table, which it does
// in the background, the pieces of the list differ in order: then what comes twice is a sign of
// others that were left out.
func (c *Conn) elements(t Table, set string) ([]Element, error) {
	var out []Element
	seen, moving := map[string]bool{}, false
	of := func(e *encoder) {
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	}
	err := c.dump(unix.NFT_MSG_GETSETELEM, t.Family, of, func(attrs []byte) {
		for _, b := range attributes(at(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e := decodeElement(b)
			moving = moving || seen[e.Key]
			seen[e.Key] = true
			out = append(out, e)
		}
	})
	if moving && err == nil {
		err = errMoving
	}
	return out, err
}
