package bpf

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The object that is committed was made of the sources that are.
func TestObjectIsOfItsSources(t *testing.T) {
	h := sha256.New()
	for _, name := range []string{"c/kernel.h", "c/meter.c"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(source)
	}
	want, err := os.ReadFile("object.sum")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.Fields(string(want))[0] {
		t.Error("c/ has changed: run make generate")
	}
}
