package routes

import (
	"math"
	"reflect"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// epsilon is below what any figure of a plan means: floats that differ by less are the same.
const epsilon = 1e-9

// differs tells whether a status is worth a write. Times are not: they say when the rest came to
// be. Nor is the demand's list of shares, which stands at the zones, too.
func differs(a, b model.RouteStatus) bool {
	return !alike(reflect.ValueOf(a), reflect.ValueOf(b))
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	demandType = reflect.TypeFor[model.Demand]()
)

// alike is reflect.DeepEqual, save for times, tiny differences, and nil beside empty slices.
func alike(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Float64:
		return math.Abs(a.Float()-b.Float()) <= epsilon*max(1, math.Abs(a.Float())) || a.Float() == b.Float()
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !alike(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		return a.Type() == timeType || alikeFields(a, b)
	default:
		return a.Equal(b)
	}
}

func alikeFields(a, b reflect.Value) bool {
	if !a.CanInterface() { // netip.Addr and the like have hidden fields, and are comparable
		return a.Equal(b)
	}
	for i := range a.NumField() {
		f := a.Type().Field(i)
		if !f.IsExported() {
			return a.Equal(b)
		}
		if a.Type() == demandType && f.Name == "Shares" {
			continue
		}
		if !alike(a.Field(i), b.Field(i)) {
			return false
		}
	}
	return true
}
