package dump

import (
	"fmt"

	"github.com/zonewise/zonewise/internal/model"
)

// check notes what does not fit together.
func (d *Dump) check() {
	known := make(map[model.Name]bool, len(d.Services))
	for _, s := range d.Services {
		known[s.Name] = true
	}
	for _, r := range d.Routes {
		if why, skipped := d.Skipped[r.Name]; skipped {
			d.note("ZoneRoute "+r.Name.String(), "metadata.name", "nothing to plan for this Service: %s", why)
		} else if !known[r.Name] {
			d.note("ZoneRoute "+r.Name.String(), "metadata.name", "there is no Service %s", r.Name)
		}
	}
	for _, s := range d.Slices {
		if _, skipped := d.Skipped[s.ServiceName()]; !skipped && !known[s.ServiceName()] {
			d.note("EndpointSlice "+s.Name.String(), "metadata.labels[kubernetes.io/service-name]", "there is no Service %s", s.ServiceName())
		}
	}
	nodes := make(map[string]bool, len(d.Nodes))
	for _, n := range d.Nodes {
		nodes[n.Name] = true
	}
	if len(d.Nodes) == 0 {
		d.note("input", "", "no Nodes in it: nobody knows where clients are")
		return
	}
	for _, s := range d.Slices {
		for _, e := range s.Endpoints {
			if e.Node != "" && !nodes[e.Node] {
				d.note("EndpointSlice "+s.Name.String(), "endpoints[].nodeName", "there is no Node %s", e.Node)
				break
			}
		}
	}
}

func (d *Dump) note(object, field, format string, args ...any) {
	d.Notes = append(d.Notes, Note{Object: object, Field: field, Message: fmt.Sprintf(format, args...)})
}
