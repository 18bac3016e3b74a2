package bpf

import (
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/bpf/bpftest"
)

// The object that is committed was made of the sources that are.
func TestObjectIsOfItsSources(t *testing.T) {
	bpftest.OfItsSources(t, "../../kernel/bpf/c/words.h", "../../kernel/bpf/c/sockets.h", "c/kernel.h", "c/socket.c")
}
