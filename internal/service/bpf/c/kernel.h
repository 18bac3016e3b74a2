/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The words of the kernel that only socket.c uses. Numbers are the kernel's binary interface
 * (include/uapi/linux/bpf.h); members of the structs at the end are found by name when the
 * programs are loaded, so that one object fits every kernel.
 */
#pragma once

#include "words.h"

enum { BPF_SK_STORAGE_GET_F_CREATE = 1 };
enum { TCP_ESTABLISHED = 1 }; /* of UDP sockets: connected */

struct bpf_sock {
	u32 bound_dev_if, family, type, protocol, mark, priority;
	u32 src_ip4, src_ip6[4], src_port;
	u16 dst_port, : 16;
	u32 dst_ip4, dst_ip6[4], state;
	int rx_queue_mapping;
};

struct bpf_sock_addr {
	u32 user_family, user_ip4, user_ip6[4], user_port;
	u32 family, type, protocol, msg_src_ip4, msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		u64 : 64;
	} __attribute__((aligned(8)));
};

static u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static long (*const bpf_sk_storage_delete)(void *map, void *sk) = (void *)108;
static u64 (*const bpf_get_netns_cookie)(void *ctx) = (void *)122;
static u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *ctx, u64 flags) = (void *)164;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	u32 skc_daddr;
	u16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
};

struct inet_sock {
	struct sock sk;
};

struct udp_sock {
	struct inet_sock inet;
};

struct bpf_iter__udp {
	union {
		struct udp_sock *udp_sk;
	};
};

#pragma clang attribute pop

extern int bpf_sock_destroy(struct sock_common *sk) __attribute__((section(".ksyms")));
