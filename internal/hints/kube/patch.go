package kube

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// Annotation is what a slice whose hints are ours carries: the digest of those hints. The stock
// controller strips hints and keeps annotations, so only a digest that fits says that hints are ours.
const Annotation = "zonewise.io/hints"

const annotationPath = "/metadata/annotations/zonewise.io~1hints" // as RFC 6901 writes it

// limit is how many zones, and how many nodes, the API allows in the hints of one endpoint.
const limit = 8

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// give returns the patch that makes a slice carry what is wanted, and nothing else; nil if it does
// already. It never returns a patch that the API server could refuse: a refused patch is a refused
// write, whatever the failure policy.
func give(s slice, want map[netip.Addr]hints.Hint) ([]operation, error) {
	for addr, h := range want {
		if err := check(h); err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", addr, err)
		}
	}
	var out []operation
	after := make([]mark, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		h := want[e.addr()]
		switch {
		case len(h.Zones) == 0 && len(h.Nodes) == 0:
			if e.Hints != nil {
				out = append(out, operation{Op: "remove", Path: hintsPath(i)})
			}
			continue
		case e.Hints == nil || !e.Hints.carry(h):
			out = append(out, operation{Op: "add", Path: hintsPath(i), Value: toHints(h)})
		}
		after = append(after, mark{e.addr(), h})
	}
	digest := digest(after)
	switch {
	case s.Metadata.Annotations[Annotation] == digest:
	case digest == "":
		out = append(out, operation{Op: "remove", Path: annotationPath})
	case len(s.Metadata.Annotations) == 0:
		out = append(out, operation{Op: "add", Path: "/metadata/annotations", Value: map[string]string{Annotation: digest}})
	default:
		out = append(out, operation{Op: "add", Path: annotationPath, Value: digest})
	}
	return out, nil
}

func hintsPath(endpoint int) string { return "/endpoints/" + strconv.Itoa(endpoint) + "/hints" }

func toHints(h hints.Hint) endpointHints {
	out := endpointHints{}
	for _, z := range h.Zones {
		out.ForZones = append(out.ForZones, named{z})
	}
	for _, n := range h.Nodes {
		out.ForNodes = append(out.ForNodes, named{n})
	}
	return out
}

// check holds a hint against the rules of the API server's own validation.
func check(h hints.Hint) error {
	for _, of := range []struct {
		what  string
		names []string
		rule  func(string) []string
	}{
		{"zone", h.Zones, validation.IsValidLabelValue},
		{"node", h.Nodes, validation.IsDNS1123Subdomain},
	} {
		if len(of.names) > limit {
			return fmt.Errorf("%d %ss are hinted, more than %d", len(of.names), of.what, limit)
		}
		for i, n := range of.names {
			if problems := of.rule(n); n == "" || len(problems) > 0 {
				return fmt.Errorf("%q is no %s name", n, of.what)
			}
			if slices.Contains(of.names[:i], n) {
				return fmt.Errorf("%s %s is hinted twice", of.what, n)
			}
		}
	}
	return nil
}

// mark is what a digest is made of.
type mark struct {
	addr netip.Addr
	hint hints.Hint
}

// digest returns the digest of what a slice carries; empty if it carries no hints. The order of
// endpoints does not matter, since the stock controller may change it.
func digest(carried []mark) string {
	if len(carried) == 0 {
		return ""
	}
	var sum uint64
	for _, m := range carried {
		h := fnv.New64a()
		write := func(s string) {
			h.Write([]byte(s))
			h.Write([]byte{0})
		}
		write(m.addr.String())
		for _, z := range m.hint.Zones {
			write("z" + z)
		}
		for _, n := range m.hint.Nodes {
			write("n" + n)
		}
		sum += h.Sum64()
	}
	return strconv.FormatUint(sum, 16)
}

// Ours tells whether the hints that a slice carries are ours.
func Ours(s model.Slice) bool {
	if s.HintMark == "" {
		return false
	}
	var carried []mark
	for _, e := range s.Endpoints {
		if len(e.ZoneHints) > 0 || len(e.NodeHints) > 0 {
			carried = append(carried, mark{e.Addr, hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}})
		}
	}
	return s.HintMark == digest(carried)
}

// strip returns the patch that takes all hints off a slice, and our mark; it fails with a conflict
// if the slice has become another.
func strip(s slice, version string) []operation {
	out := []operation{{Op: "replace", Path: "/metadata/resourceVersion", Value: version}}
	for i, e := range s.Endpoints {
		if e.Hints != nil {
			out = append(out, operation{Op: "remove", Path: hintsPath(i)})
		}
	}
	if _, ok := s.Metadata.Annotations[Annotation]; ok {
		out = append(out, operation{Op: "remove", Path: annotationPath})
	}
	return out
}

func encode(patch []operation) ([]byte, error) { return json.Marshal(patch) }
