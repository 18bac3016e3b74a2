/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The words of the kernel that only meter.c uses. Numbers are the kernel's binary interface
 * (include/uapi/linux/bpf.h, netfilter.h, nf_conntrack_common.h); members of the structs at the end
 * are found by name when the programs are loaded, so that one object fits every kernel.
 */
#pragma once

#include "words.h"

enum { BPF_MAP_TYPE_PROG_ARRAY = 3, BPF_MAP_TYPE_QUEUE = 22 };
enum { BPF_F_MMAPABLE = 1 << 10 };
enum { NF_ACCEPT = 1 };
enum { IPPROTO_DCCP = 33, IPPROTO_SCTP = 132, IPPROTO_UDPLITE = 136 };
enum { TCP_TIME_WAIT = 6, TCP_NEW_SYN_RECV = 12 };
enum { IFF_LOOPBACK = 8 };
enum { IPS_CONFIRMED = 1 << 3, IPS_SRC_NAT = 1 << 4, IPS_DST_NAT = 1 << 5, IPS_TEMPLATE = 1 << 11 };
enum { IP_CT_IS_REPLY = 3, NFCT_INFOMASK = 7 };
enum { SKB_GSO_UDP_L4 = 1 << 17 };

static long (*const bpf_tail_call)(void *ctx, void *programs, u32 index) = (void *)12;
static long (*const bpf_map_push_elem)(void *map, const void *value, u64 flags) = (void *)87;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;

extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __attribute__((section(".ksyms")));

/* as reads an address as what lies there. A wrong address reads as zeros. */
#define as(type, address) ((type *)bpf_rdonly_cast((void *)(address), __builtin_btf_type_id(*(type *)0, 1)))

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	unsigned int flags;
	char name[16];
};

struct nf_hook_state {
	struct net_device *in;
	struct net_device *out;
};

union nf_inet_addr {
	u32 all[4];
};

union nf_conntrack_man_proto {
	u16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	u16 l3num;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			u16 all;
		} u;
		u8 protonum;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
};

struct skb_shared_info {
	unsigned short gso_size;
	unsigned short gso_segs;
	unsigned int gso_type;
};

struct sk_buff {
	unsigned long _nfct;
	unsigned int len;
	u16 transport_header;
	u16 network_header;
	unsigned int end;
	unsigned char *head;
	struct sock *sk;
};

struct sock_common {
	volatile unsigned char skc_state;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
};

#pragma clang attribute pop

/* What netfilter hands to a program: fixed. */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

/* Of a TCP header the byte that tells its length: fixed. */
struct tcphdr {
	u8 before[12];
	u8 offset;
};
