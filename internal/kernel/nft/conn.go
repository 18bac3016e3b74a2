package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// A batch must fit the socket's send buffer whole: 100,000 services are about 40 MB.
	sendBuffer = 128 << 20
	// An acknowledgement comes for each message, and all of them wait while we send.
	receiveBuffer = 16 << 20
	// A list of elements is one netlink attribute, whose length is 16 bits.
	elementsPerMessage = 512
	// The kernel answers a batch that fails late with fewer messages than were asked for.
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

	mu   sync.Mutex
	lib  *nftables.Conn // nil while there is no socket
	sock *netlink.Conn
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
	if c.lib == nil {
		return nil
	}
	lib := c.lib
	c.lib, c.sock = nil, nil
	return lib.CloseLasting()
}

// with runs f, alone, on the socket.
func (c *Conn) with(f func(*nftables.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lib == nil {
		lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(c.netns),
			nftables.WithSockOptions(func(s *netlink.Conn) error {
				c.sock = s
				return errors.Join(s.SetWriteBuffer(sendBuffer), s.SetReadBuffer(receiveBuffer))
			}))
		if err != nil {
			return fmt.Errorf("nft socket: %w", err)
		}
		c.lib = lib
	}
	err := c.sock.SetDeadline(time.Now().Add(patience))
	if err == nil {
		err = f(c.lib)
	}
	if err != nil {
		return errors.Join(err, c.hangUp())
	}
	return nil
}

// Commit makes the changes of the batch in one transaction.
func (c *Conn) Commit(b *Batch) error {
	t := table(b.table)
	err := c.with(func(lib *nftables.Conn) error {
		for _, o := range b.ops {
			if err := queue(lib, t, o); err != nil {
				return err
			}
		}
		if err := lib.Flush(); err != nil {
			return fmt.Errorf("transaction: %w", first(err))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("nft table %s: %w", b.table, err)
	}
	return nil
}

// Generation returns the number of transactions that the namespace has seen, ours and others',
// modulo 2^32. Elements that packets add do not count.
func (c *Conn) Generation() (uint32, error) {
	var id []byte
	err := c.with(func(*nftables.Conn) error {
		answers, err := c.sock.Execute(netlink.Message{
			Header: netlink.Header{
				Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN),
				Flags: netlink.Request,
			},
			Data: make([]byte, 4),
		})
		if err != nil {
			return err
		}
		if len(answers) == 1 && len(answers[0].Data) > 4 {
			id = at(answers[0].Data[4:], unix.NFTA_GEN_ID)
		}
		if len(id) != 4 {
			return errors.New("no number in the answer")
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("nft generation: %w", err)
	}
	return binary.BigEndian.Uint32(id), nil
}

// first returns the first of many errors: the kernel goes on after it only to report its echoes.
func first(err error) error {
	for {
		switch e := err.(type) {
		case interface{ Unwrap() []error }:
			err = e.Unwrap()[0]
		case interface{ Unwrap() error }:
			if _, many := e.Unwrap().(interface{ Unwrap() []error }); !many {
				return err
			}
			err = e.Unwrap()
		default:
			return err
		}
	}
}

func table(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
}

func queue(conn *nftables.Conn, t *nftables.Table, o op) error {
	switch o.verb {
	case addTable:
		conn.AddTable(t)
	case delTable:
		conn.DelTable(t)
	case addChain:
		conn.AddChain(chain(t, o.chain))
	case flushChain:
		conn.FlushChain(chain(t, o.chain))
	case delChain:
		conn.DelChain(chain(t, o.chain))
	case addRule:
		conn.AddRule(&nftables.Rule{
			Table: t, Chain: chain(t, o.chain), Exprs: o.rule.Exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, o.rule.Comment),
		})
	case addSet:
		return conn.AddSet(set(t, o.set), nil)
	case addElements:
		return inLots(o.elements, func(lot []nftables.SetElement) error {
			return conn.SetAddElements(set(t, o.set), lot)
		}, true)
	case delElements:
		return inLots(o.elements, func(lot []nftables.SetElement) error {
			return conn.SetDeleteElements(set(t, o.set), lot)
		}, false)
	}
	return nil
}

func chain(t *nftables.Table, c Chain) *nftables.Chain {
	out := &nftables.Chain{Name: c.Name, Table: t}
	if c.Hook != nil {
		out.Type = nftables.ChainType(c.Hook.Type)
		out.Hooknum = nftables.ChainHookRef(nftables.ChainHook(c.Hook.Point))
		out.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority))
	}
	return out
}

func set(t *nftables.Table, s Set) *nftables.Set {
	out := &nftables.Set{
		Table: t, Name: s.Name, Dynamic: s.Dynamic, Size: s.Size,
		KeyType: dataType(s.Key), Concatenation: len(s.Key) > 1,
	}
	if s.Verdicts {
		out.IsMap, out.DataType = true, nftables.TypeVerdict
	} else if len(s.Data) > 0 {
		out.IsMap, out.DataType = true, dataType(s.Data)
	}
	return out
}

func dataType(fields []Field) nftables.SetDatatype {
	types := make([]nftables.SetDatatype, len(fields))
	for i, f := range fields {
		types[i] = [...]nftables.SetDatatype{
			Addr: nftables.TypeIPAddr, Protocol: nftables.TypeInetProto,
			Port: nftables.TypeInetService, Mark: nftables.TypeMark,
		}[f]
	}
	if len(types) == 1 {
		return types[0]
	}
	return nftables.MustConcatSetType(types...)
}

func inLots(elements []Element, send func([]nftables.SetElement) error, values bool) error {
	for lot := range slices.Chunk(elements, elementsPerMessage) {
		out := make([]nftables.SetElement, len(lot))
		for i, e := range lot {
			out[i].Key = []byte(e.Key)
			switch {
			case !values:
			case e.Verdict == Drop:
				out[i].VerdictData = &expr.Verdict{Kind: expr.VerdictDrop}
			case e.Verdict != "":
				out[i].VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: string(e.Verdict)}
			default:
				out[i].Val = []byte(e.Data)
			}
		}
		if err := send(out); err != nil {
			return err
		}
	}
	return nil
}

// Read returns the contents of the table, and false if there is no such table.
func (c *Conn) Read(name string) (contents Contents, there bool, err error) {
	err = c.with(func(lib *nftables.Conn) error {
		contents, there, err = c.read(lib, name)
		return err
	})
	if err != nil {
		return Contents{}, false, fmt.Errorf("nft table %s: %w", name, err)
	}
	return contents, there, nil
}

func (c *Conn) read(lib *nftables.Conn, name string) (Contents, bool, error) {
	out := Contents{Chains: map[string][]string{}, Sets: map[string]bool{}}
	tables, err := lib.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return out, false, fmt.Errorf("tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == name }) {
		return Contents{}, false, nil
	}
	sets, err := lib.GetSets(table(name))
	if err != nil {
		return out, false, fmt.Errorf("sets: %w", err)
	}
	for _, s := range sets {
		out.Sets[s.Name] = true
	}
	chains, err := lib.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return out, false, fmt.Errorf("chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name == name {
			out.Chains[ch.Name] = nil
		}
	}
	if err := c.comments(name, out.Chains); err != nil {
		return out, false, fmt.Errorf("rules: %w", err)
	}
	return out, true, nil
}

// comments appends the comment of every rule of the table to those of its chain. The library
// would decode whole rules, and cannot decode some.
func (c *Conn) comments(name string, chains map[string][]string) error {
	request := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(name + "\x00")}}
	return c.dump(unix.NFT_MSG_GETRULE, request, func(attrs []byte) error {
		if text(at(attrs, unix.NFTA_RULE_TABLE)) == name {
			chain := text(at(attrs, unix.NFTA_RULE_CHAIN))
			comment, _ := userdata.GetString(at(attrs, unix.NFTA_RULE_USERDATA), userdata.TypeComment)
			chains[chain] = append(chains[chain], comment)
		}
		return nil
	})
}

// Elements returns the elements of a set or map.
func (c *Conn) Elements(table string, s Set) ([]Element, error) {
	var out []Element
	err := c.with(func(*nftables.Conn) (err error) {
		for range attempts {
			if out, err = c.elements(table, s.Name); !errors.Is(err, errMoving) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nft set %s: %w", s.Name, err)
	}
	return out, nil
}

// elements reads a set once. While the kernel moves a set to a bigger hash table, which it does
// in the background, the pieces of the list differ in order: then what comes twice is a sign of
// others that were left out.
func (c *Conn) elements(table, set string) ([]Element, error) {
	var out []Element
	seen, moving := map[string]bool{}, false
	request := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	}
	err := c.dump(unix.NFT_MSG_GETSETELEM, request, func(attrs []byte) error {
		for _, b := range attributes(at(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e := decodeElement(b)
			moving = moving || seen[e.Key]
			seen[e.Key] = true
			out = append(out, e)
		}
		return nil
	})
	if moving && err == nil {
		err = errMoving
	}
	return out, err
}
