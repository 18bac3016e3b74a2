package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Sample is how many addresses a subnet had left at some time.
type Sample struct {
	At   time.Time
	Free int
}

// Forecast is what becomes of a subnet if it goes on as it did.
type Forecast struct {
	Free    int
	PerHour float64       // addresses used, given back subtracted
	Left    time.Duration // until it is full; 0: it is not getting fuller
}

// maxLeft is as far as anybody looks ahead.
const maxLeft = 10 * 365 * 24 * time.Hour

// NewForecast needs samples of a while, oldest first: the rate is the median of what each pair of them
// says, so that one rollout, which takes many addresses and gives them back, does not count.
func NewForecast(samples []Sample) Forecast {
	if len(samples) == 0 {
		return Forecast{}
	}
	f := Forecast{Free: samples[len(samples)-1].Free}
	var rates []float64
	for i, a := range samples {
		for _, b := range samples[i+1:] {
			if hours := b.At.Sub(a.At).Hours(); hours > 0 {
				rates = append(rates, float64(a.Free-b.Free)/hours)
			}
		}
	}
	if len(rates) == 0 {
		return f
	}
	slices.Sort(rates)
	f.PerHour = (rates[(len(rates)-1)/2] + rates[len(rates)/2]) / 2
	if f.PerHour > 0 {
		if hours := float64(f.Free) / f.PerHour; hours < maxLeft.Hours() {
			f.Left = time.Duration(hours * float64(time.Hour))
		}
	}
	return f
}

// Thin drops samples so that a long time is told by few: every second one, but for the last.
func Thin(samples []Sample, most int) []Sample {
	for len(samples) > most {
		var half []Sample
		for i, s := range samples {
			if (len(samples)-1-i)%2 == 0 {
				half = append(half, s)
			}
		}
		samples = half
	}
	return samples
}

// Full tells whether somebody should do something before that long has passed.
func (f Forecast) Full(within time.Duration) bool {
	return f.Free == 0 || f.Left > 0 && f.Left <= within
}

// String is "12 free addresses, 3.0 an hour: full in 4h0m0s".
func (f Forecast) String() string {
	text := count(f.Free, "free address", "free addresses")
	switch {
	case f.Free == 0:
		return text
	case f.Left == 0:
		return text + ", not getting fewer"
	}
	return fmt.Sprintf("%s, %.1f an hour fewer: full in %s", text, f.PerHour, f.Left.Round(time.Minute))
}

// Blocks is how many /28 prefixes can still be had of a subnet, given what is known to be taken: the cloud
// does not tell. A reservation for single addresses counts as taken.
func Blocks(subnet netip.Prefix, taken []netip.Addr, prefixes []netip.Prefix) int {
	if !subnet.Addr().Is4() || subnet.Bits() > 28 {
		return 0
	}
	subnet = subnet.Masked()
	first := ordinal(subnet.Addr())
	blocks := 1 << (28 - subnet.Bits())
	full := make([]bool, blocks)
	full[0], full[blocks-1] = true, true // the cloud's own
	mark := func(from, to uint32) {
		for b := from / prefixSize; b <= to/prefixSize && int(b) < blocks; b++ {
			full[b] = true
		}
	}
	for _, a := range taken {
		if subnet.Contains(a) {
			mark(ordinal(a)-first, ordinal(a)-first)
		}
	}
	for _, p := range prefixes {
		if r := rangeOf(p); subnet.Contains(r.First) {
			mark(ordinal(r.First)-first, ordinal(r.Last)-first)
		}
	}
	n := 0
	for _, taken := range full {
		if !taken {
			n++
		}
	}
	return n
}
