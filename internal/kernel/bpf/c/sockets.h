/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where the socket path led sockets to: it writes (internal/service/bpf), and the meter reads
 * (internal/meter/bpf). Pinned in sockets-v1: who changes anything here gives that another name.
 */
#pragma once

#include "words.h"

/* An address, IPv4 as ::ffff:a.b.c.d, in network byte order. */
struct address {
	u32 ip[4];
	u16 port;
	u8 protocol;
	u8 zero;
};

#define MAPPED 0xffff0000 /* ::ffff:0:0/96's third word, as little-endian machines read it */

INLINE u32 last_word(const struct address *a) { return a->port | a->protocol << 16; }

INLINE int same(const struct address *a, const struct address *b)
{
	return a->ip[3] == b->ip[3] && a->ip[2] == b->ip[2] && a->ip[1] == b->ip[1] && a->ip[0] == b->ip[0] &&
	       last_word(a) == last_word(b);
}

struct pair {
	struct address service;
	struct address endpoint;
};

/* What a socket was led to. */
struct origin {
	struct pair pair;
	u32 used; /* seconds since boot */
};

/* An unconnected UDP socket can speak with so many Services at a time. */
enum { TALKS = 4 };

struct talks {
	struct origin with[TALKS];
};

/*
 * What connected sockets were led to, by cookie: no two sockets have the same, and the kernel counts
 * them up. A place is its socket's alone until that is closed (see socket.c's released). Where both
 * places of a socket are taken its origin is in peers instead: that is as good, and costs 0.6 us more.
 * The kernel's own sockets (NFS) are closed without a word and leave theirs taken.
 */
struct place {
	u64 cookie; /* 0: free */
	struct pair pair;
};

enum { PLACES = 131072, CHOICES = 2 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, u32);
	__type(value, struct place);
} places SEC(".maps");

/* Both live with their sockets. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct origin);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct talks);
} conversations SEC(".maps");
