package dump

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

// checkBlock: what the fast way reads is what the library reads.
func checkBlock(t interface{ Fatalf(string, ...any) }, text string) bool {
	fast, ok := blockJSON([]byte(text))
	if !ok {
		return false
	}
	slow, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%q: %v, but read as %s", text, err, fast)
	}
	var a, b any
	if err := json.Unmarshal(fast, &a); err != nil {
		t.Fatalf("%q: %v in %s", text, err, fast)
	}
	if err := json.Unmarshal(slow, &b); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if diff := cmp.Diff(b, a); diff != "" {
		t.Fatalf("%q: %s", text, diff)
	}
	return true
}

func TestBlockByHand(t *testing.T) {
	for _, text := range []string{
		"a: b", "a: 1", "a: 10.0.0.1", "a: 1.5", "a: 100m", "a: 3Gi", "a: \"12\"", "a: 'x'", "a: 'it''s'", "a: \"q\\\"\"", "a:", "a: {}", "a: []",
		"a: 0x10", "a: 010", "a: 1e3", "a: -1", "a: ~", "a: null", "a: yes", "a: off", "a: 2026-01-01", "a: 1_000",
		"a:\n- b\n- c\nd: e", "a:\n  - b\n  - c", "- a: b\n  c: d\n- e", "- - a\n  - b\n- c", "a:\n  b:\n    c: d\n  e: f",
		"a: |\n  text: x\n\n  - more\nb: c", "- |-\n  x\n- y", "a: >\n  folded\n  text\n", "a: x y z", "a: x:y", "a: http://x/y", "a: \"x: y\"",
		"\"a b\": c", "f:metadata:\n  b: {}", "a: b\r\nc: d\r\n", "\n\na: b\n\nc: d\n\n", "a: 6a4d8a6e-7c7b-4f0c-9d3b-0a2b6c1d2e3f", "a: 12345678-1234-1234-1234-123456789012", "a: 1e345678-1234-1234-1234-123456789012", "a: 12345678901234567890",
	} {
		if !checkBlock(t, text) && !strings.Contains(text, "f:metadata") && !strings.Contains(text, "''") {
			t.Errorf("%q is left to the library", text)
		}
	}
	for _, text := range []string{"a: b\na: c", "a: &x b", "a: *x", "a: !!str 1", "a: b # c", "# a", "a: b\n  c", "on: b", "1: b", "a:\n    b: c\n  d: e", "-", "a: \"b",
		"a: b: c", "{a: b}", "? a", "a:\tb", "a: ä", "a: |2\n  x", "%YAML 1.1", "<<: {a: b}", "a: [1, 2]", "a: {b: c}", "a: []: ", "a: ---"} {
		if fast, ok := blockJSON([]byte(text)); ok {
			if !checkBlock(t, text) {
				t.Errorf("%q: %s", text, fast)
			}
		}
	}
}

// On objects as kubectl prints them, and on such with something spoilt, both ways agree.
func TestBlockLikeTheLibrary(t *testing.T) {
	scalar := rapid.OneOf(
		rapid.Map(rapid.SampledFrom([]string{"a", "off", "Yes", "null", "~", "1", "01", "1e5", "0x1f", "1.5", ".5", ".inf", "10.0.0.1", "2026-01-01", "2026-01-01T00:00:00Z",
			"a: b", "a #b", "- a", "x\ny", "x\n\n y\n", " a", "a ", "", "'", "\"", "\\", "@", "{", "100m", "3Gi", "a:", "<<", "=", "1_0", "0b1", "12:30", "+1"}),
			func(s string) any { return s }),
		rapid.Map(rapid.StringMatching(`[ -~]{0,12}`), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n % 1e15 }),
		rapid.Map(rapid.Float64Range(-1e6, 1e6), func(f float64) any { return f }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Just[any](nil))
	key := rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}`), rapid.StringMatching(`[a-z.]{1,6}/[a-z-]{1,6}`), rapid.SampledFrom([]string{"on", "y", "1", "f:x", "a b", "", "null", "<<"}))
	var node func(depth int) *rapid.Generator[any]
	node = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		return rapid.OneOf(scalar,
			rapid.Map(rapid.SliceOfN(node(depth-1), 0, 3), func(s []any) any { return s }),
			rapid.Map(rapid.MapOfN(key, node(depth-1), 0, 4), func(m map[string]any) any { return m }))
	}
	plain := 0
	rapid.Check(t, func(rt *rapid.T) {
		text, err := yaml.Marshal(rapid.MapOfN(key, node(3), 1, 4).Draw(rt, "object"))
		if err != nil {
			rt.Fatal(err)
		}
		if checkBlock(rt, string(text)) {
			plain++
		}
		spoilt := []byte(text)
		for range rapid.IntRange(1, 3).Draw(rt, "times") {
			at := rapid.IntRange(0, len(spoilt)-1).Draw(rt, "at")
			piece := rapid.SampledFrom([]string{"", " ", "  ", "\n", "- ", ": ", ":", "'", "\"", "#", " #", "|", "&a", "*a", "1", "[", "}"}).Draw(rt, "piece")
			spoilt = append(spoilt[:at:at], append([]byte(piece), spoilt[at+rapid.IntRange(0, 1).Draw(rt, "instead"):]...)...)
			if len(spoilt) == 0 {
				return
			}
		}
		checkBlock(rt, string(spoilt))
	})
	if plain == 0 {
		t.Error("nothing was plain enough")
	}
}

// The fast way is the usual one.
func TestDumpsArePlain(t *testing.T) {
	items := strings.Split(cluster(t), "\n- ")[1:]
	for _, i := range items {
		text, _, _ := strings.Cut("  "+i+"\n", "\nkind: List")
		if !checkBlock(t, strings.ReplaceAll(text, ".nan", "1")) {
			t.Errorf("%q is left to the library", text)
		}
	}
	var out strings.Builder
	printed(&out, true, 1, 3)
	for _, i := range strings.Split(out.String(), "\n- ")[1:] {
		text, _, _ := strings.Cut("  "+i+"\n", "\nkind: List")
		if !checkBlock(t, text) {
			t.Errorf("%q is left to the library", text)
		}
	}
}
