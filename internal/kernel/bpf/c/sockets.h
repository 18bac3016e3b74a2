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

/*
 * What was dialled last, for who sees packets and no sockets: each connect() and each datagram that is
 * sent to an address is noted, also where it was led nowhere.
 *
 * By CPU: the packet that a call sends passes the node's hooks on the same CPU before the call returns,
 * as a rule.
 */
struct dial {
	struct pair pair; /* service.protocol is 0 where the endpoint itself was dialled */
	u32 check;	  /* of the pair */
	u32 zero;
	u64 at; /* jiffies */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct dial);
} dialling SEC(".maps");

/*
 * By endpoint, for packets that were held up. And by endpoint and client: UDP's, if they are known, have their
 * notes here alone, since who connects sends when he likes.
 */
struct last {
	struct address service; /* its protocol is 0 where the endpoint itself was dialled */
	u32 check;		/* of it and whose it is */
	u64 at; /* jiffies */
};

enum { LASTS = 65536 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LASTS);
	__type(key, u32);
	__type(value, struct last);
} lasts SEC(".maps");

INLINE u64 mix_ip(const u32 *ip)
{
	return ((u64)ip[0] << 32 | ip[1]) * 0x9e3779b97f4a7c15ULL + ((u64)ip[2] << 32 | ip[3]) * 0xc2b2ae3d27d4eb4fULL;
}

INLINE u64 mix(const struct address *a) { return mix_ip(a->ip) + last_word(a) * 0xd6e8feb86659fd93ULL; }

/* whose_last is whom a note is of: an endpoint, or a client (not 0) of it. */
INLINE u64 whose_last(u64 endpoint, u64 client) { return endpoint + client * 0xa0761d6478bd642fULL; }

INLINE u32 check_last(u64 whose, u64 service) { return (whose ^ service * 0xe7037ed1a0b428dbULL) >> 32 | 1; }

INLINE struct last *last_of(u64 whose)
{
	u32 at = whose >> 48;
	return bpf_map_lookup_elem(&lasts, &at);
}
