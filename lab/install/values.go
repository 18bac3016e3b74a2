package install

import (
	"encoding/json"
	"maps"
)

// Merge lays chart values over others, map by map, and leaves both as they are.
func Merge(under, over map[string]any) map[string]any {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range over {
		a, ok := out[k].(map[string]any)
		if b, isMap := v.(map[string]any); ok && isMap {
			v = Merge(a, b)
		}
		out[k] = v
	}
	return out
}

// Plain returns values in the types that reading them from a file gives them, so that those of a
// flag and those of a file compare.
func Plain(values map[string]any) (map[string]any, error) {
	b, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	err = json.Unmarshal(b, &out)
	return out, err
}
