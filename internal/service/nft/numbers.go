package nft

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// Maps from frontends to chains would be verdict maps, and of those the kernel checks every element
// whenever a verdict or a chain comes: a change of one Service would cost what all Services cost.
// So services, inside, unreachable and affinity have numbers, and what a number means is in small verdict
// maps: ways, whose chains translate; ways-inside, as some ways go to inside, and the kernel takes no
// circle; and outcomes, whose chains filter and note.
//
// A packet may see the maps change between its two look-ups. So a number is there before a frontend
// has it, and goes when it was idle at two sweeps. It belongs to a name, whoever gives it out: it is the
// name's hash, or the next that is free. What is in the kernel is not free.

// numbers are what verdicts are called in maps whose values are data.
type numbers struct {
	of   map[nft.Verdict]string // the number, as a key of the maps that tell what it means
	mean map[string]nft.Verdict
}

func newNumbers() *numbers {
	return &numbers{of: map[nft.Verdict]string{}, mean: map[string]nft.Verdict{}}
}

// number returns the verdict's number.
func (n *numbers) number(v nft.Verdict) string {
	if has, ok := n.of[v]; ok {
		return has
	}
	h := fnv.New32a()
	h.Write([]byte(v)) // it never fails
	for at := h.Sum32(); ; at++ {
		number := string(native(at))
		if _, taken := n.mean[number]; !taken {
			n.learn(number, v)
			return number
		}
	}
}

// learn enters a number that was given out.
func (n *numbers) learn(number string, v nft.Verdict) {
	if has, ok := n.of[v]; !ok || number < has {
		n.of[v] = number
	}
	n.mean[number] = v
}

// forget makes a number free.
func (n *numbers) forget(number string) {
	if v := n.mean[number]; n.of[v] == number {
		delete(n.of, v)
	}
	delete(n.mean, number)
}

// numbered puts numbers in the place of verdicts, and emits what they mean.
func (n *numbers) numbered(put emit) emit {
	values := map[string]string{} // as many frontends have the same
	return func(s set, key, value string) {
		if m, ok := s.meaning(); ok {
			number := n.number(nft.Verdict(value))
			put(m, number, value)
			if value = values[number]; value == "" {
				value = valueOf(number)
				values[number] = value
			}
		}
		put(s, key, value)
	}
}

// A value of numberData is 0, for a reason that rules_memory.go tells, and the number. There it is
// big-endian, and so shown by nft as it shows the key that it is turned into.
func valueOf(number string) string {
	b := make([]byte, numberAt, numberAt+4)
	return string(binary.BigEndian.AppendUint32(b, binary.NativeEndian.Uint32([]byte(number))))
}

// numberIn is the inverse of valueOf.
func numberIn(value string) string {
	return string(native(binary.BigEndian.Uint32([]byte(value[numberAt:]))))
}

const numberAt = 4
