package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dumpBuffer is as much as the kernel will put into one piece of a list. For each piece it walks
// the set from its beginning, so a list of small pieces takes quadratic time.
const dumpBuffer = 32 << 10

// errMoving says that the list changed while the kernel wrote it.
var errMoving = errors.New("it kept changing while it was read")

// dump asks for a list and hands over the attributes of each message that comes. What f
// keeps it must copy.
func (c *Conn) dump(kind uint16, of Family, request func(*encoder), f func(attrs []byte)) error {
	return c.ask(kind, unix.NLM_F_DUMP, of, request, f)
}

// ask sends a question of attributes, which may be nil, and hands over those of the answers.
func (c *Conn) ask(kind, flags uint16, of Family, request func(*encoder), f func(attrs []byte)) error {
	e := encoder{seq: c.seq, family: of}
	e.message(kind, flags)
	if request != nil {
		request(&e)
	}
	e.done()
	c.seq = e.seq
	if err := c.send(e.b); err != nil {
		return err
	}
	moving := false
	return c.receive(func(m message) (last bool, err error) {
		moving = moving || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.seq != e.seq:
			return false, fmt.Errorf("answer %d to question %d", m.seq, e.seq)
		case m.kind == unix.NLMSG_DONE && moving:
			return true, errMoving
		case m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR:
			return true, errno(m.body)
		case len(m.body) < nfHeader:
			return false, fmt.Errorf("message of %d bytes", len(m.body))
		}
		f(m.body[nfHeader:])
		return false, nil
	})
}

// send gives the messages to the kernel, which has done all it will do when this returns.
func (c *Conn) send(b []byte) error {
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// receive hands over what the kernel says until f has its last message, or an error.
func (c *Conn) receive(f func(message) (last bool, err error)) error {
	if c.in == nil {
		c.in = make([]byte, dumpBuffer)
	}
	for {
		var n int
		var failed error
		err := c.raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), c.in, 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
		for m := range messages(c.in[:n]) {
			if last, err := f(m); last || err != nil {
				return err
			}
		}
	}
}

func errno(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			m := message{
				kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
				seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:n],
			}
			if !yield(m) {
				return
			}
			b = b[min(aligned(n), len(b)):]
		}
	}
}

// attributes yields type and value of each attribute.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			n := int(binary.NativeEndian.Uint16(b))
			if n < attrHeader || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[attrHeader:n]) {
				return
			}
			b = b[min(aligned(n), len(b)):]
		}
	}
}

func aligned(n int) int { return (n + 3) &^ 3 }

// at returns the value of an attribute, by the types that lead to it.
func at(b []byte, path ...uint16) []byte {
	for _, want := range path {
		var found []byte
		for kind, v := range attributes(b) {
			if kind == want {
				found = v
				break
			}
		}
		b = found
	}
	return b
}

func decodeElement(b []byte) Element {
	var e Element
	for kind, v := range attributes(b) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = string(at(v, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_DATA:
			e.Data = string(at(v, unix.NFTA_DATA_VALUE))
			e.Verdict = decodeVerdict(at(v, unix.NFTA_DATA_VERDICT))
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = time.Duration(number(v)) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPR:
			e.Counter.Bytes = number(at(v, unix.NFTA_EXPR_DATA, unix.NFTA_COUNTER_BYTES))
			e.Counter.Packets = number(at(v, unix.NFTA_EXPR_DATA, unix.NFTA_COUNTER_PACKETS))
		}
	}
	return e
}

func decodeVerdict(b []byte) Verdict {
	if chain := at(b, unix.NFTA_VERDICT_CHAIN); len(chain) > 0 {
		return Verdict(text(chain))
	}
	if code := at(b, unix.NFTA_VERDICT_CODE); slices.Equal(code, []byte{0, 0, 0, 0}) { // NF_DROP
		return Drop
	}
	return ""
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
