/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Counts each packet that the node forwards, sends or receives, once, after netfilter has done its
 * translations: connection tracking then knows who speaks to whom, and what the client dialled.
 */
#include "kernel.h"
#include "sockets.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* An address, IPv4 in the first word, in network byte order. */
struct ip {
	u32 word[4];
};

/* What packets are counted by. */
struct key {
	struct ip client, server; /* who opened the connection, and who answers */
	struct ip front;	  /* what the client dialled, where that is not the server; else zero */
	u16 front_port, port;	  /* of front and of server, in network byte order */
	u8 protocol;
	u8 family;
	u8 side;	 /* which ends are on this node */
	u8 masqueraded; /* the source was translated, too */
	u64 cgroup;	 /* of the node's own process that opened it; else 0 */
};

enum { CLIENT = 1, SERVER = 2 };

/* Who owns a counter. Another owner, or none any more, is another generation. */
struct owner {
	struct key key;
	u32 generation;
	u32 state;
	u64 born; /* ns since boot */
};

enum { FREE, LIVE, RETIRED };

struct way {
	u64 bytes, packets; /* of IP, as on the wire */
	u64 headers;	    /* bytes of headers that cutting into packets adds, not in bytes */
};

struct counts {
	struct way request, response;
	u64 connections;
	u64 zero;
};

/* A connection's ends as they are before any translation. */
struct ends {
	struct address client, server;
};

/* What a client dialled, as the socket path knows and packets do not tell. */
struct front {
	struct ip ip;
	u16 port; /* 0: none */
	u16 zero;
	u32 check; /* of the above and of whose it is */
};

struct settings {
	u64 epoch;	/* of these counters: no other's are the same */
	u64 room;	/* so many counters are given out at most */
	u64 noting;	/* there is a socket path, and egress notes what its clients dialled */
	char pods[8];	/* how names of pods' interfaces begin */
};

enum { PREFIX = 8 };

enum { COUNTERS = 65536, FLOWS = 262144, DIALLED = 65536 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* How many counters were given out for the first time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} given SEC(".maps");

/* Which counter is a key's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, COUNTERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, u32);
} numbers SEC(".maps");

/* Counters that were given back. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, COUNTERS);
	__uint(key_size, 0);
	__type(value, u32);
} returned SEC(".maps");

/* What has no counter, by reason, side and way: see other(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, u32);
	__type(value, struct way);
} others SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} settings SEC(".maps");

/*
 * Which counter a flow had last: its number in 16 bits, and a tag of the flow and the counter's
 * generation. One word, so that it is never read half. It saves the look-up by key, no more: a flow
 * whose word was overwritten by another's finds the same counter again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, u32);
	__type(value, u64);
} flows SEC(".maps");

/* What the socket path's clients dialled: by addresses, for a flow's first packet; and by conntrack
 * entry, for a flow whose word was overwritten. Who finds another's there finds none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DIALLED);
	__type(key, u32);
	__type(value, struct front);
} dialled SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, u32);
	__type(value, struct front);
} led SEC(".maps");

/* Programs of the hooks. A link to a hook cannot be given another program, but this can. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u32);
} programs SEC(".maps");

INLINE u64 stir(u64 h, u64 a)
{
	h = (h ^ a) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 29;
}

INLINE void add(u64 *to, u64 n) { __sync_fetch_and_add(to, n); }

/* count adds a packet. One that is to be cut into several has their headers but once. */
INLINE void count(struct way *w, const struct sk_buff *skb, u8 protocol)
{
	const struct skb_shared_info *cut = as(struct skb_shared_info, skb->head + skb->end);
	u32 packets = 1, size = cut->gso_size;
	if (size) {
		u32 header = skb->transport_header - skb->network_header;
		header += protocol == IPPROTO_TCP ? (as(struct tcphdr, skb->head + skb->transport_header)->offset >> 4) * 4 : 8;
		packets = cut->gso_segs;
		if (!packets)
			packets = (skb->len - header + size - 1) / size;
		if (packets > 1 && (protocol == IPPROTO_TCP || cut->gso_type & SKB_GSO_UDP_L4))
			add(&w->headers, (u64)header * (packets - 1));
	}
	add(&w->bytes, skb->len);
	add(&w->packets, packets);
}

/* Where packets are seen. */
enum { LEAVING, ARRIVING };

/* Why packets have no counter. */
enum { UNTRACKED, FULL };

/* is_pods tells interfaces of pods by how their names begin. */
INLINE int is_pods(const struct net_device *d)
{
	u32 zero = 0;
	const struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	if (!s || !s->pods[0])
		return 0;
	for (int i = 0; i < PREFIX && s->pods[i]; i++)
		if (d->name[i] != s->pods[i])
			return 0;
	return 1;
}

/* side_of tells which ends are on this node. */
INLINE u8 side_of(const struct bpf_nf_ctx *ctx, u32 at, int reply)
{
	const struct net_device *in = ctx->state->in, *out = ctx->state->out;
	int from = !in || is_pods(in), to = at == ARRIVING;
	if (at == LEAVING && out)
		to = out->flags & IFF_LOOPBACK || is_pods(out);
	return (from ? reply ? SERVER : CLIENT : 0) | (to ? reply ? CLIENT : SERVER : 0);
}

/* other counts what has no counter. */
INLINE void other(const struct bpf_nf_ctx *ctx, u32 reason, u32 at, int reply)
{
	u32 i = (reason * 4 + side_of(ctx, at, reply)) * 2 + reply;
	struct way *w = bpf_map_lookup_elem(&others, &i);
	if (w)
		count(w, ctx->skb, 0);
}

INLINE int has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP ||
	       protocol == IPPROTO_UDPLITE;
}

INLINE void read_ip(struct ip *to, const union nf_inet_addr *from, u8 family)
{
	to->word[0] = from->all[0];
	if (family == AF_INET)
		return;
	for (int i = 1; i < 4; i++)
		to->word[i] = from->all[i];
}

INLINE void address_of(struct address *a, const struct ip *ip, u8 family, u16 port, u8 protocol)
{
	int v6 = family == AF_INET6;
	a->ip[0] = v6 ? ip->word[0] : 0;
	a->ip[1] = v6 ? ip->word[1] : 0;
	a->ip[2] = v6 ? ip->word[2] : MAPPED;
	a->ip[3] = v6 ? ip->word[3] : ip->word[0];
	a->port = port;
	a->protocol = protocol;
}

/* noting tells whether there is a socket path. */
INLINE int noting(void)
{
	u32 zero = 0;
	const struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	return s && s->noting;
}

/* cgroup_of is the cgroup of the node's own process that sends a request. */
INLINE u64 cgroup_of(const struct bpf_nf_ctx *ctx, u32 at, int reply)
{
	if (at == ARRIVING || ctx->state->in || reply)
		return 0;
	const struct sock *sk = ctx->skb->sk;
	if (!sk)
		return 0;
	u8 state = sk->__sk_common.skc_state;
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
		return 0; /* no whole socket */
	return as(struct cgroup, sk->sk_cgrp_data.cgroup)->kn->id;
}

INLINE u64 stir_ends(const struct ends *p)
{
	u64 h = 1;
	for (int i = 0; i < 4; i++)
		h = stir(h, (u64)p->client.ip[i] << 32 | p->server.ip[i]);
	return stir(h, (u64)p->client.port << 32 | (u32)p->server.port << 8 | p->client.protocol);
}

INLINE u32 check_of(u64 whose, const struct front *f)
{
	u64 h = stir(whose, (u64)f->ip.word[0] << 32 | f->ip.word[1]);
	return stir(stir(h, (u64)f->ip.word[2] << 32 | f->ip.word[3]), f->port) | 1;
}

/* read_front copies what is kept, if it is whose it should be. */
INLINE int read_front(const struct front *from, u64 whose, struct front *to)
{
	to->check = once(from->check);
	if (!to->check)
		return 0;
	for (int i = 0; i < 4; i++)
		to->ip.word[i] = once(from->ip.word[i]);
	to->port = once(from->port);
	return to->check == check_of(whose, to);
}

INLINE struct front *front_of(u64 whose)
{
	u32 at = whose % FLOWS;
	return bpf_map_lookup_elem(&led, &at);
}

/* find_front finds what the socket path's client dialled. The first packet keeps it for the flow. */
INLINE void find_front(struct key *k, u64 whose, u16 client_port, int first)
{
	struct front f = {};
	struct front *kept = front_of(whose);
	if (!kept)
		return;
	if (first) {
		struct ends p = {};
		address_of(&p.client, &k->client, k->family, client_port, k->protocol);
		address_of(&p.server, &k->server, k->family, k->port, k->protocol);
		u64 h = stir_ends(&p);
		u32 at = h % DIALLED;
		const struct front *d = bpf_map_lookup_elem(&dialled, &at);
		if (!d || !read_front(d, h, &f))
			return;
		f.check = check_of(whose, &f);
		*kept = f;
	} else if (!read_front(kept, whose, &f)) {
		return;
	}
	k->front = f.ip;
	k->front_port = f.port;
}

INLINE struct owner *owner_of(u32 number) { return bpf_map_lookup_elem(&owners, &number); }

/* take finds a free counter, or none: 0. */
INLINE u32 take(void)
{
	u32 zero = 0, number = 0;
	u64 *g = bpf_map_lookup_elem(&given, &zero);
	const struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	if (g && s && *g < s->room) {
		number = __sync_fetch_and_add(g, 1) + 1;
		if (number <= s->room && number < COUNTERS)
			return number;
	}
	return bpf_map_pop_elem(&returned, &number) ? 0 : number;
}

/* number_of finds or makes a key's counter. */
static __attribute__((noinline)) u32 number_of(const struct key *k)
{
	if (!k)
		return 0;
	u32 *there = bpf_map_lookup_elem(&numbers, k);
	if (there)
		return *there;
	u32 number = take();
	struct owner *o = number ? owner_of(number) : 0;
	if (!o)
		return 0;
	o->key = *k;
	o->born = bpf_ktime_get_boot_ns();
	o->state = LIVE;
	if (!bpf_map_update_elem(&numbers, k, &number, BPF_NOEXIST))
		return number;
	o->state = FREE;
	bpf_map_push_elem(&returned, &number, 0);
	there = bpf_map_lookup_elem(&numbers, k);
	return there ? *there : 0;
}

INLINE u64 tag(u64 whose, u32 generation) { return stir(whose, generation) >> 16; }

INLINE int meter(struct bpf_nf_ctx *ctx, u32 at)
{
	struct sk_buff *skb = ctx->skb;
	u64 entry = skb->_nfct, ct = entry & ~(u64)NFCT_INFOMASK;
	u32 info = entry & NFCT_INFOMASK;
	/* What the node sends itself was seen when it left. */
	if (at == ARRIVING && ctx->state->in && ctx->state->in->flags & IFF_LOOPBACK)
		return NF_ACCEPT;
	const struct nf_conn *c = as(struct nf_conn, ct);
	u64 status = ct ? c->status : IPS_TEMPLATE;
	if (status & IPS_TEMPLATE) {
		other(ctx, UNTRACKED, at, 0);
		return NF_ACCEPT;
	}
	const struct nf_conntrack_tuple *dial = &c->tuplehash[0].tuple, *back = &c->tuplehash[1].tuple;
	int first = !(status & IPS_CONFIRMED), reply = info >= IP_CT_IS_REPLY;
	u32 client = dial->src.u3.all[0];
	u16 client_port = dial->src.u.all;
	u8 protocol = dial->dst.protonum;
	u64 whose = stir(ct, (u64)client << 16 | client_port);
	u32 slot = (u32)(ct >> 6) * 0x9e3779b1u >> 14; /* of FLOWS */
	u64 *flow = bpf_map_lookup_elem(&flows, &slot);
	if (!flow)
		return NF_ACCEPT;
	u64 word = *(volatile u64 *)flow;
	u32 number = word >> 48;
	struct owner *o = owner_of(number);
	if (first || !number || !o || tag(whose, o->generation) != (word & 0xffffffffffffULL)) {
		struct key k = {};
		k.protocol = protocol;
		k.family = dial->src.l3num;
		read_ip(&k.client, &dial->src.u3, k.family);
		read_ip(&k.server, &back->src.u3, k.family);
		k.side = side_of(ctx, at, reply);
		k.masqueraded = (status & IPS_SRC_NAT) != 0;
		if (has_ports(protocol))
			k.port = back->src.u.all;
		if (status & IPS_DST_NAT) {
			read_ip(&k.front, &dial->dst.u3, k.family);
			k.front_port = has_ports(protocol) ? dial->dst.u.all : 0;
		} else if (noting()) {
			find_front(&k, whose, client_port, first);
		}
		k.cgroup = cgroup_of(ctx, at, reply);
		number = number_of(&k);
		o = owner_of(number);
		if (!number || !o) {
			other(ctx, FULL, at, reply);
			return NF_ACCEPT;
		}
		*(volatile u64 *)flow = (u64)number << 48 | tag(whose, o->generation);
	}
	struct counts *n = bpf_map_lookup_elem(&counters, &number);
	if (!n)
		return NF_ACCEPT;
	if (first)
		add(&n->connections, 1);
	count(reply ? &n->response : &n->request, skb, protocol);
	return NF_ACCEPT;
}

SEC("netfilter") int leaving(struct bpf_nf_ctx *ctx) { return meter(ctx, LEAVING); }
SEC("netfilter") int arriving(struct bpf_nf_ctx *ctx) { return meter(ctx, ARRIVING); }

SEC("netfilter") int at_leaving(struct bpf_nf_ctx *ctx)
{
	bpf_tail_call(ctx, &programs, LEAVING);
	return NF_ACCEPT;
}

SEC("netfilter") int at_arriving(struct bpf_nf_ctx *ctx)
{
	bpf_tail_call(ctx, &programs, ARRIVING);
	return NF_ACCEPT;
}

/* origin_of finds what a socket dialled that the socket path led to an endpoint. */
INLINE const struct address *origin_of(struct __sk_buff *skb, struct bpf_sock *sk, const struct address *endpoint)
{
	u64 cookie = bpf_get_socket_cookie(skb);
	for (u32 i = 0; i < CHOICES; i++) {
		u32 at = (cookie ^ i) % PLACES;
		const struct place *p = bpf_map_lookup_elem(&places, &at);
		if (p && p->cookie == cookie && same(&p->pair.endpoint, endpoint))
			return &p->pair.service;
	}
	const struct origin *o = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (o && same(&o->pair.endpoint, endpoint))
		return &o->pair.service;
	if (endpoint->protocol == IPPROTO_TCP)
		return 0;
	const struct talks *t = bpf_sk_storage_get(&conversations, sk, 0, 0);
	for (int i = 0; t && i < TALKS; i++)
		if (t->with[i].pair.service.protocol && same(&t->with[i].pair.endpoint, endpoint))
			return &t->with[i].pair.service;
	return 0;
}

/* note keeps what a packet's socket dialled, or forgets what another did that had the same addresses. */
INLINE void note(struct __sk_buff *skb, struct bpf_sock *sk, const struct ends *p)
{
	u64 h = stir_ends(p);
	u32 at = h % DIALLED;
	struct front *there = bpf_map_lookup_elem(&dialled, &at);
	const struct address *o = origin_of(skb, sk, &p->server);
	struct front f = {};
	if (!there)
		return;
	if (!o) {
		if (read_front(there, h, &f))
			there->check = 0;
		return;
	}
	int v4 = o->ip[2] == MAPPED && !o->ip[1] && !o->ip[0];
	f.port = o->port;
	f.ip.word[0] = v4 ? o->ip[3] : o->ip[0];
	f.ip.word[1] = v4 ? 0 : o->ip[1];
	f.ip.word[2] = v4 ? 0 : o->ip[2];
	f.ip.word[3] = v4 ? 0 : o->ip[3];
	f.check = check_of(h, &f);
	if (there->check != f.check)
		*there = f;
}

/* Headers as they are on the wire. */
struct ipv4 {
	u8 length, before[8], protocol;
	u16 sum;
	u32 from, to;
};

struct ipv6 {
	u8 before[6], protocol, hops;
	u32 from[4], to[4];
};

struct ports {
	u16 from, to;
	u8 before[9], flags; /* of TCP */
};

enum { SYN = 2 };

/* noted tells whether a header is of a packet that says something new: datagrams may be their flow's first, segments with SYN are. */
INLINE int noted(u8 protocol, const void *header, const void *end)
{
	const struct ports *h = header;
	if (protocol == IPPROTO_UDP)
		return header + 4 <= end;
	return protocol == IPPROTO_TCP && header + sizeof(*h) <= end && h->flags & SYN;
}

/* egress notes what sockets dialled that the socket path leads, as they send. */
SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ipv4 *ip = data;
	if (data + sizeof(*ip) > end)
		return 1;
	struct ends p = {};
	const void *header;
	u8 protocol;
	if (ip->length >> 4 == 4) {
		header = data + (ip->length & 15) * 4;
		protocol = ip->protocol;
		if (!noted(protocol, header, end))
			return 1;
		p.client.ip[2] = p.server.ip[2] = MAPPED;
		p.client.ip[3] = ip->from;
		p.server.ip[3] = ip->to;
	} else {
		const struct ipv6 *ip6 = data;
		header = data + sizeof(*ip6);
		if (header > end)
			return 1;
		protocol = ip6->protocol;
		if (!noted(protocol, header, end))
			return 1;
		for (int i = 0; i < 4; i++) {
			p.client.ip[i] = ip6->from[i];
			p.server.ip[i] = ip6->to[i];
		}
	}
	const struct ports *h = header;
	p.client.port = h->from;
	p.server.port = h->to;
	p.client.protocol = p.server.protocol = protocol;
	struct bpf_sock *sk = skb->sk;
	if (sk)
		note(skb, sk, &p);
	return 1;
}
