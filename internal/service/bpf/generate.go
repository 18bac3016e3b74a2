package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types object c/socket.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../kernel/bpf/c
//go:generate sh -c "cat ../../kernel/bpf/c/words.h ../../kernel/bpf/c/sockets.h c/kernel.h c/socket.c | sha256sum > object.sum"
