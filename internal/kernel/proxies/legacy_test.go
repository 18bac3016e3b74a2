package proxies

import (
	"encoding/binary"
	"testing"
)

// entry is a rule of IPv4 with a target of a name.
func entry(target, chain string) []byte {
	const head, target4 = 112, 88
	b := make([]byte, head+chainName+32)
	binary.NativeEndian.PutUint16(b[target4:], head)
	binary.NativeEndian.PutUint16(b[target4+2:], uint16(len(b)))
	copy(b[head+targetName:], target)
	copy(b[head+chainName:], chain)
	return b
}

// What the kernel says of its tables is believed only as far as it makes sense.
func TestFindInLegacyEntries(t *testing.T) {
	l := legacies()[0]
	both := append(entry("", "KUBE-SERVICES"), entry(headOfChain, "KUBE-SERVICES")...)
	loop := entry("", "")
	binary.NativeEndian.PutUint16(loop[l.target+2:], 0)
	long := entry("", "")
	binary.NativeEndian.PutUint16(long[l.target+2:], uint16(len(long)+1))
	far := entry("", "")
	binary.NativeEndian.PutUint16(far[l.target:], uint16(len(far)-chainName+1))
	for name, c := range map[string]struct {
		entries []byte
		there   bool
		err     error
	}{
		"nothing":                      {nil, false, nil},
		"a chain":                      {both, true, nil},
		"a target that is no chain":    {both[:len(both)/2], false, nil},
		"another chain":                {entry(headOfChain, "KUBE-SERVICES-2"), false, nil},
		"cut short":                    {both[:len(both)-1], false, errEntries},
		"cut in the head":              {both[:20], false, errEntries},
		"no next entry":                {loop, false, errEntries},
		"the next is beyond the end":   {long, false, errEntries},
		"the target is beyond the end": {far, false, errEntries},
	} {
		if there, err := l.find(c.entries, "KUBE-SERVICES"); there != c.there || err != c.err {
			t.Errorf("%s: %v, %v", name, there, err)
		}
	}
}
