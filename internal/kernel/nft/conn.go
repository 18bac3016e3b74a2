package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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

// Conn reaches nf_tables of one network namespace. It opens a socket for each call, so that an
// answer left over from a failed call can never be taken for another's.
type Conn struct {
	netns int
}

// Dial returns a door to the network namespace of the calling thread (at each call), or to the
// one that the descriptor netns refers to if it is not 0. Nothing is opened yet.
func Dial(netns int) *Conn { return &Conn{netns: netns} }

func (c *Conn) open() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(c.netns), nftables.WithSockOptions(func(s *netlink.Conn) error {
		return errors.Join(
			s.SetWriteBuffer(sendBuffer),
			s.SetReadBuffer(receiveBuffer),
			s.SetDeadline(time.Now().Add(patience)),
		)
	}))
}

// Commit makes the changes of the batch in one transaction.
func (c *Conn) Commit(b *Batch) error {
	conn, err := c.open()
	if err != nil {
		return fmt.Errorf("nft socket: %w", err)
	}
	t := table(b.table)
	for _, o := range b.ops {
		if err := queue(conn, t, o); err != nil {
			return fmt.Errorf("nft table %s: %w", b.table, err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nft table %s: transaction: %w", b.table, first(err))
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
func (c *Conn) Read(name string) (Contents, bool, error) {
	conn, err := c.open()
	if err != nil {
		return Contents{}, false, fmt.Errorf("nft socket: %w", err)
	}
	out := Contents{Chains: map[string][]string{}, Sets: map[string]bool{}}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return out, false, fmt.Errorf("nft tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == name }) {
		return out, false, nil
	}
	sets, err := conn.GetSets(table(name))
	if err != nil {
		return out, false, fmt.Errorf("nft table %s: sets: %w", name, err)
	}
	for _, s := range sets {
		out.Sets[s.Name] = true
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return out, false, fmt.Errorf("nft chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name == name {
			out.Chains[ch.Name] = nil
		}
	}
	if err := c.comments(name, out.Chains); err != nil {
		return out, false, fmt.Errorf("nft table %s: rules: %w", name, err)
	}
	return out, true, nil
}

// comments appends the comment of every rule of the table to those of its chain. The library
// would decode whole rules, and cannot decode some.
func (c *Conn) comments(name string, chains map[string][]string) error {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: c.netns})
	if err != nil {
		return err
	}
	defer s.Close()
	const familyIPv4 = 2
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(name + "\x00")},
	})
	if err != nil {
		return err
	}
	rules, err := s.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{familyIPv4, 0, 0, 0}, attrs...),
	})
	if err != nil {
		return err
	}
	for _, m := range rules {
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return err
		}
		var in, chain, comment string
		for d.Next() {
			switch d.Type() {
			case unix.NFTA_RULE_TABLE:
				in = d.String()
			case unix.NFTA_RULE_CHAIN:
				chain = d.String()
			case unix.NFTA_RULE_USERDATA:
				comment, _ = userdata.GetString(d.Bytes(), userdata.TypeComment)
			}
		}
		if in == name {
			chains[chain] = append(chains[chain], comment)
		}
		if err := d.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Elements returns the elements of a set or map, each once.
func (c *Conn) Elements(tableName string, s Set) ([]Element, error) {
	conn, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("nft socket: %w", err)
	}
	raw, err := conn.GetSetElements(set(table(tableName), s))
	if err != nil {
		return nil, fmt.Errorf("nft set %s: %w", s.Name, err)
	}
	out := make([]Element, 0, len(raw))
	seen := make(map[string]bool, len(raw)) // the kernel may list an element twice while the set grows
	for _, r := range raw {
		if seen[string(r.Key)] {
			continue
		}
		e := Element{Key: string(r.Key), Data: string(r.Val)}
		seen[e.Key] = true
		if s.Verdicts {
			if e.Data, e.Verdict, err = "", "", nil; len(r.Val) > 0 {
				e.Verdict, err = verdict(r.Val)
			}
			if err != nil {
				return nil, fmt.Errorf("nft set %s: verdict: %w", s.Name, err)
			}
		}
		if r.Counter != nil {
			e.Counter = Counter{Packets: r.Counter.Packets, Bytes: r.Counter.Bytes}
		}
		out = append(out, e)
	}
	return out, nil
}

// verdict decodes the value of a verdict map's element, which the library leaves raw.
func verdict(raw []byte) (Verdict, error) {
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
