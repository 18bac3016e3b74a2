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
		return out, false, nil
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
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(name + "\x00")},
	})
	if err != nil {
		return err
	}
	rules, err := c.sock.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, attrs...),
	})
	if err != nil {
		return err
	}
	for _, m := range rules {
		in, chain, comment, err := decodeRule(m.Data)
		if err != nil {
			return err
		}
		if in == name {
			chains[chain] = append(chains[chain], comment)
		}
	}
	return nil
}

func decodeRule(raw []byte) (table, chain, comment string, err error) {
	const header = 4 // family, version, resource
	d, err := netlink.NewAttributeDecoder(raw[header:])
	if err != nil {
		return "", "", "", err
	}
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_RULE_TABLE:
			table = d.String()
		case unix.NFTA_RULE_CHAIN:
			chain = d.String()
		case unix.NFTA_RULE_USERDATA:
			comment, _ = userdata.GetString(d.Bytes(), userdata.TypeComment)
		}
	}
	return table, chain, comment, d.Err()
}

// Elements returns the elements of a set or map, each once.
func (c *Conn) Elements(tableName string, s Set) ([]Element, error) {
	var out []Element
	err := c.with(func(lib *nftables.Conn) error {
		raw, err := lib.GetSetElements(set(table(tableName), s))
		if err != nil {
			return err
		}
		out, err = decodeElements(raw, s.Verdicts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nft set %s: %w", s.Name, err)
	}
	return out, nil
}

func decodeElements(raw []nftables.SetElement, verdicts bool) ([]Element, error) {
	out := make([]Element, 0, len(raw))
	seen := make(map[string]bool, len(raw)) // the kernel may list an element twice while the set grows
	for _, r := range raw {
		e := Element{Key: string(r.Key)}
		if seen[e.Key] {
			continue
		}
		seen[e.Key] = true
		if r.Counter != nil {
			e.Counter = Counter{Packets: r.Counter.Packets, Bytes: r.Counter.Bytes}
		}
		if !verdicts {
			e.Data = string(r.Val)
		} else if v, err := decodeVerdict(r.Val); err != nil {
			return nil, fmt.Errorf("verdict: %w", err)
		} else {
			e.Verdict = v
		}
		out = append(out, e)
	}
	return out, nil
}

// decodeVerdict decodes the value of a verdict map's element, which the library leaves raw.
func decodeVerdict(raw []byte) (Verdict, error) {
	d, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return "", err
	}
	d.ByteOrder = binary.BigEndian
	var out Verdict
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_VERDICT_CODE:
			if out == "" && int32(d.Uint32()) == int32(expr.VerdictDrop) {
				out = Drop
			}
		case unix.NFTA_VERDICT_CHAIN:
			out = Verdict(d.String())
		}
	}
	return out, d.Err()
}
