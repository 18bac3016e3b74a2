package demo

import (
	"fmt"
	"strconv"
	"strings"
)

// Hits is how many of a batch of requests one pod answered.
type Hits struct {
	Pod      string
	Zone     string
	Requests int
}

// Spread is which pods answered a batch of requests.
type Spread []Hits

// parseSpread reads what `sort | uniq -c` makes of the echo server's "Hostname: POD" lines.
// zones maps a pod to its zone; an answer of a pod that is not there is an error.
func parseSpread(text string, zones map[string]string) (Spread, error) {
	var s Spread
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 || fields[1] != "Hostname:" {
			return nil, fmt.Errorf("answer %q: want a count and a host name", strings.TrimSpace(line))
		}
		n, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, fmt.Errorf("answer %q: want a count first", strings.TrimSpace(line))
		}
		zone, ok := zones[fields[2]]
		if !ok {
			return nil, fmt.Errorf("answer of %s, which is no pod of the Service", fields[2])
		}
		s = append(s, Hits{Pod: fields[2], Zone: zone, Requests: n})
	}
	return s, nil
}

// Answered is the number of requests that were answered.
func (s Spread) Answered() int {
	return s.sum(func(Hits) bool { return true })
}

// In is the number of requests that were answered in a zone.
func (s Spread) In(zone string) int {
	return s.sum(func(h Hits) bool { return h.Zone == zone })
}

// Zones is the number of zones that answered.
func (s Spread) Zones() int {
	zones := map[string]bool{}
	for _, h := range s {
		zones[h.Zone] = true
	}
	return len(zones)
}

func (s Spread) sum(counts func(Hits) bool) (n int) {
	for _, h := range s {
		if counts(h) {
			n += h.Requests
		}
	}
	return n
}
