package proxies

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacy is how the kernel of before nftables tells the rules of one address family: what the program
// iptables-legacy asks, without the program. Numbers are the kernel's binary interface
// (include/uapi/linux/netfilter_ipv4/ip_tables.h and its like for IPv6).
type legacy struct {
	program       string
	names         string // the file that lists the tables which are in use
	domain, level int
	target        int // where an entry has the offset of its target; that of the next entry follows
}

func legacies() []legacy {
	return []legacy{
		{"iptables-legacy", "ip_tables_names", unix.AF_INET, unix.SOL_IP, 88},
		{"ip6tables-legacy", "ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 140},
	}
}

const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES

	tableName   = 32                // bytes
	infoSize    = tableName + 13*4  // struct ipt_getinfo; the last word is the size of all entries
	entriesHead = tableName + 4 + 4 // struct ipt_get_entries: name, size, a gap
	targetName  = 2                 // in struct xt_entry_target
	chainName   = 32                // in struct xt_error_target, which is at the head of each chain
	headOfChain = "ERROR"           // XT_ERROR_TARGET
	attempts    = 10                // while somebody changes the rules
)

// hasChain tells whether a table of the thread's network namespace has a chain.
func (l legacy) hasChain(table, chain string) (bool, error) {
	// To ask for a table that is not in use would make it.
	names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // nor is the module
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", l.program, err)
	}
	if !slices.Contains(strings.Fields(string(names)), table) {
		return false, nil
	}
	// Any socket will do, and this kind needs no privilege of its own.
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("%s: %w", l.program, err)
	}
	defer unix.Close(fd)
	for range attempts {
		there, err := l.read(fd, table, chain)
		if errors.Is(err, unix.EAGAIN) {
			continue // another size meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("%s: table %s: %w", l.program, table, err)
		}
		return there, nil
	}
	return false, fmt.Errorf("%s: table %s: it changes all the time", l.program, table)
}

func (l legacy) read(fd int, table, chain string) (bool, error) {
	info := make([]byte, infoSize)
	copy(info, table)
	if err := l.ask(fd, getInfo, info); err != nil {
		return false, err
	}
	size := info[infoSize-4:]
	// All rules come at once, megabytes of them: not into the heap, which would keep the room.
	b, err := unix.Mmap(-1, 0, entriesHead+int(binary.NativeEndian.Uint32(size)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false, err
	}
	copy(b, table)
	copy(b[tableName:], size)
	err = l.ask(fd, getEntries, b)
	there := false
	if err == nil {
		there, err = l.find(b[entriesHead:], chain)
	}
	return there, errors.Join(err, unix.Munmap(b))
}

func (l legacy) ask(fd, what int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(l.level), uintptr(what),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

var errEntries = errors.New("entries are not as expected")

// find looks for the head of a chain.
func (l legacy) find(entries []byte, chain string) (bool, error) {
	for len(entries) > 0 {
		if len(entries) < l.target+4 {
			return false, errEntries
		}
		target := int(binary.NativeEndian.Uint16(entries[l.target:]))
		next := int(binary.NativeEndian.Uint16(entries[l.target+2:]))
		if next <= target || next > len(entries) || target+chainName > next {
			return false, errEntries
		}
		t := entries[target:next]
		if text(t[targetName:chainName]) == headOfChain && text(t[chainName:]) == chain {
			return true, nil
		}
		entries = entries[next:]
	}
	return false, nil
}

// text is what comes before the first zero.
func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}
