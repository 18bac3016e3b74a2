package route

import (
	"fmt"
	"math"

	"github.com/zonewise/zonewise/internal/model"
)

// Bounds of the bound, and of a price in USD per GB.
const (
	minMaxOverload = 0.01
	maxMaxOverload = 4
	MaxPerGB       = 1000
)

// Validate tells what is wrong with a spec, naming the field as users write it. Zero fields mean
// the default.
func Validate(spec model.RouteSpec) error {
	switch spec.Mode {
	case "", model.Optimal, model.Observe, model.Off:
	default:
		return fmt.Errorf("spec.mode: %q is none of Optimal, Observe, Off", spec.Mode)
	}
	if spec.MaxOverload != 0 {
		if err := checkOverload(spec.MaxOverload); err != nil {
			return fmt.Errorf("spec.maxOverload: %w", err)
		}
	}
	switch spec.Capacity {
	case "", model.Pods, model.CPURequests:
	default:
		return fmt.Errorf("spec.capacity: %q is none of Pods, CPURequests", spec.Capacity)
	}
	if err := checkDemand(spec); err != nil {
		return err
	}
	if err := checkAmount(spec.BytesPerSecond); err != nil {
		return fmt.Errorf("spec.demand.bytesPerSecond: %w", err)
	}
	seen := map[string]bool{}
	for i, z := range spec.Drained {
		switch {
		case z == "":
			return fmt.Errorf("spec.drainedZones[%d]: a zone without a name", i)
		case seen[z]:
			return fmt.Errorf("spec.drainedZones[%d]: zone %s is there twice", i, z)
		}
		seen[z] = true
	}
	return nil
}

func checkOverload(v float64) error {
	switch {
	case math.IsNaN(v):
		return fmt.Errorf("not a number")
	case v < minMaxOverload:
		return fmt.Errorf("%v is less than %v", v, minMaxOverload)
	case v > maxMaxOverload:
		return fmt.Errorf("%v is more than %v", v, maxMaxOverload)
	}
	return nil
}

func checkDemand(spec model.RouteSpec) error {
	switch spec.Demand {
	case "", model.Measured, model.NodeCPU, model.Static:
	default:
		return fmt.Errorf("spec.demand.source: %q is none of Measured, NodeCPU, Static", spec.Demand)
	}
	if spec.Demand != model.Static {
		if len(spec.Static) > 0 {
			return fmt.Errorf("spec.demand.shares: they hold only with source Static")
		}
		return nil
	}
	if len(spec.Static) == 0 {
		return fmt.Errorf("spec.demand.shares: source Static needs some")
	}
	seen, sum := map[string]bool{}, 0.0
	for i, s := range spec.Static {
		switch {
		case s.Zone == "":
			return fmt.Errorf("spec.demand.shares[%d].zone: a zone without a name", i)
		case seen[s.Zone]:
			return fmt.Errorf("spec.demand.shares[%d].zone: zone %s is there twice", i, s.Zone)
		}
		if err := checkAmount(s.Share); err != nil {
			return fmt.Errorf("spec.demand.shares: zone %s: %w", s.Zone, err)
		}
		seen[s.Zone] = true
		sum += s.Share
	}
	if sum == 0 {
		return fmt.Errorf("spec.demand.shares: one share at least must be more than 0")
	}
	return nil
}

func checkAmount(v float64) error {
	switch {
	case math.IsNaN(v):
		return fmt.Errorf("not a number")
	case math.IsInf(v, 0):
		return fmt.Errorf("not a finite number")
	case v < 0:
		return fmt.Errorf("%g is negative", v)
	}
	return nil
}
