package demo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/controller/view"
)

// hint is one endpoint as the demo asks kubectl to print it: "ADDRESS in ZONE for ZONES".
type hint struct {
	address, zone string
	forZones      []string
}

func parseHints(text string) ([]hint, error) {
	var all []hint
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[1] != "in" || fields[3] != "for" {
			return nil, fmt.Errorf("endpoint %q: want an address, its zone, and what it is for", line)
		}
		all = append(all, hint{address: fields[0], zone: fields[2], forZones: fields[4:]})
	}
	return all, nil
}

// wantHints says what is missing until there are n endpoints, all with hints or none with any.
func wantHints(all []hint, n int, hinted bool) error {
	if err := wantPods(all, n); err != nil {
		return err
	}
	for _, h := range all {
		switch has := len(h.forZones) > 0; {
		case hinted && !has:
			return fmt.Errorf("endpoint %s has no zone hint", h.address)
		case !hinted && has:
			return fmt.Errorf("endpoint %s has a zone hint", h.address)
		}
	}
	return nil
}

// wantPods says what is missing until there are n endpoints.
func wantPods(all []hint, n int) error {
	if len(all) != n {
		return fmt.Errorf("the EndpointSlice has %d endpoints, not %d", len(all), n)
	}
	return nil
}

// service is what the demo reads of `zonewise service -o json`.
type service struct {
	Ports []struct {
		Nodes []struct {
			Node      string `json:"node"`
			Zone      string `json:"zone"`
			Endpoints []struct {
				Address string  `json:"address"`
				Zone    string  `json:"zone"`
				Share   float64 `json:"share"`
			} `json:"endpoints"`
		} `json:"nodes"`
	} `json:"ports"`
}

// wantProgrammed says what is missing until every one of n nodes sends the Service's connections to
// the endpoints that it must: those of its own zone where there are hints, else all of them.
func wantProgrammed(report string, all []hint, n int, hinted bool) error {
	var s service
	if err := json.Unmarshal([]byte(report), &s); err != nil {
		return fmt.Errorf("zonewise service: %w", err)
	}
	if len(s.Ports) != 1 || len(s.Ports[0].Nodes) != n {
		return fmt.Errorf("zonewise service does not show one port on %d nodes", n)
	}
	for _, node := range s.Ports[0].Nodes {
		var want, got []string
		for _, h := range all {
			if !hinted || slices.Contains(h.forZones, node.Zone) {
				want = append(want, endpoint(h.address))
			}
		}
		for _, e := range node.Endpoints {
			got = append(got, e.Address)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("node %s sends to %v, not to %v", node.Node, got, want)
		}
	}
	return nil
}

// mostly is the least share that a plan keeps in a zone which has a pod: with as many pods as zones
// and one more, none has less than two thirds of its fair share.
const mostly = 2. / 3

// wantRouted says what is missing until every one of n nodes sends most connections to its own zone,
// and not all of them do so with all.
func wantRouted(report string, n int) error {
	var s service
	if err := json.Unmarshal([]byte(report), &s); err != nil {
		return fmt.Errorf("zonewise service: %w", err)
	}
	if len(s.Ports) != 1 || len(s.Ports[0].Nodes) != n {
		return fmt.Errorf("zonewise service does not show one port on %d nodes", n)
	}
	spills := false
	for _, node := range s.Ports[0].Nodes {
		own := 0.0
		for _, e := range node.Endpoints {
			if e.Zone == node.Zone {
				own += e.Share
			}
		}
		if own < mostly {
			return fmt.Errorf("node %s sends %.0f%% to its own zone", node.Node, 100*own)
		}
		spills = spills || own < 1
	}
	if !spills {
		return fmt.Errorf("no node sends anything to another zone: the bound is not kept")
	}
	return nil
}

// wantMostIn says whether one zone answered most requests.
func wantMostIn(s Spread, zone string) error {
	if float64(s.In(zone)) < (mostly-0.1)*float64(s.Answered()) { // a tenth for chance
		return fmt.Errorf("only %d of %d requests were answered in %s", s.In(zone), s.Answered(), zone)
	}
	return nil
}

// mostCounted is the part of what crossed that a meter has told of when it has told of all: two counts of the same.
const mostCounted = 0.99

// wantMetered says what is missing until the meter has told of the bytes that crossed.
func wantMetered(report string, crossed uint64) error {
	var t view.Traffic
	if err := json.Unmarshal([]byte(report), &t); err != nil {
		return fmt.Errorf("zonewise top: %w", err)
	}
	for _, l := range t.Lines {
		if l.Name == "demo/echo" && float64(l.CrossZoneBytes) >= mostCounted*float64(crossed) {
			return nil
		}
	}
	return fmt.Errorf("the meter has not told of all %s bytes that crossed zones %s", thousands(float64(crossed), 0), t.Notes)
}

// endpoint is where the echo server of a pod listens.
func endpoint(address string) string { return address + ":8080" }

// wantAll says how many requests were lost.
func wantAll(s Spread, requests int) error {
	if lost := requests - s.Answered(); lost != 0 {
		return fmt.Errorf("%d of %d requests were lost", lost, requests)
	}
	return nil
}

// wantZones says whether every zone answered.
func wantZones(s Spread, zones int) error {
	if s.Zones() != zones {
		return fmt.Errorf("pods of %d zones answered, not of %d", s.Zones(), zones)
	}
	return nil
}

// wantIn says whether one zone answered alone.
func wantIn(s Spread, zone string) error {
	if s.In(zone) != s.Answered() {
		return fmt.Errorf("%d of %d requests were answered outside of %s", s.Answered()-s.In(zone), s.Answered(), zone)
	}
	return nil
}
