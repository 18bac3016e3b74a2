package route_test

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

var (
	manyPods = regexp.MustCompile(`(\d+|one|a) (?:more )?pods? in zone ([\w-]+)|(\d+) in zone ([\w-]+)`)
	bound    = regexp.MustCompile(`^a bound of ([0-9.]+)$`)
	giveBack = regexp.MustCompile(`^give zone ([\w-]+) back$`)
)

// apply does what a fix says.
func apply(t *testing.T, in route.Input, way string) route.Input {
	t.Helper()
	if m := bound.FindStringSubmatch(way); m != nil {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		in.Spec.MaxOverload = v
		return in
	}
	if m := giveBack.FindStringSubmatch(way); m != nil {
		in.Spec.Drained = nil
		return in
	}
	found := manyPods.FindAllStringSubmatch(way, -1)
	if found == nil {
		t.Fatalf("what is to be done by %q?", way)
	}
	scale := map[string]int{}
	for _, m := range found {
		n, err := strconv.Atoi(m[1] + m[3])
		if err != nil {
			n = 1
		}
		zone := m[2] + m[4]
		scale[zone] = n
		for _, e := range in.Endpoints {
			if e.Ready && e.Zone == zone {
				scale[zone]++
			}
		}
	}
	if cpu := in.CPU; cpu != nil { // of pods that are not there yet nobody knows what they request
		in.CPU = func(pod model.Name) int64 {
			if strings.Contains(pod.Name, "what-if") {
				return 0
			}
			return cpu(pod)
		}
	}
	in.Endpoints = route.Endpoints(route.WhatIf{Scale: scale}.Slices(service(), cut(in.Endpoints)), false)
	return in
}

// Every fix, when done, keeps more connections in their zone.
func TestFixesWork(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	tried := map[string]int{}
	for i := range 5000 {
		in, _ := draw(r, i%2 == 1)
		p, _ := route.Plan(in)
		if p.Fix == "" {
			continue
		}
		for _, way := range strings.Split(p.Fix, ", or ") {
			if way == "a zone label on every node" {
				continue
			}
			better, _ := route.Plan(apply(t, in, way))
			if better.InZone.Ideal < p.InZone.Ideal+0.001-1e-9 {
				t.Fatalf("case %d: %q brings %v\n%s%s", i, way, better.InZone.Ideal, route.Text(p), route.Text(better))
			}
			tried[strings.Fields(way)[0]]++
		}
	}
	for _, kind := range []string{"one", "a", "give"} {
		if tried[kind] == 0 {
			t.Errorf("no fix of kind %q was tried: %v", kind, tried)
		}
	}
	t.Log(tried)
}
