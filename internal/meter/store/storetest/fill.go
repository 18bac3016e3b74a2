package storetest

import "reflect"

// Fill gives every field of the value that p points to something other than zero, also those of
// the structs in it: what is carried on must have all of them.
func Fill(p any) { fill(reflect.ValueOf(p).Elem()) }

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Uint64, reflect.Uint16, reflect.Uint8:
		v.SetUint(v.Uint() + 200)
	default:
		panic("storetest: no value for a field of kind " + v.Kind().String())
	}
}
