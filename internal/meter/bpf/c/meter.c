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

/* Who owns a counter. */
struct owner {
	struct key key;
	u32 state;
	u32 zero;
	u64 born; /* ns since boot */
};

enum { FREE, LIVE, RETIRED };

struct way {
	u64 bytes, packets; /* of IP, as on the wire */
	u64 headers;	    /* bytes of headers that cutting into packets adds, not in bytes */
	u64 last;	    /* jiffies when it was counted last: the kernel has no other clock that costs nothing */
};

/* Requests and responses are often counted by two CPUs: each has a cache line of its own. (What can be mapped
 * begins at a page.) */
struct counts {
	struct way request;
	u64 connections;
	u64 zero[3];
	struct way response;
	u64 zeros[4];
};

/* What a client dialled, as the socket path knows and packets do not tell. */
struct front {
	struct ip ip;
	u16 port; /* 0: none */
	u16 zero;
	u32 check; /* of the above and of whose it is */
};

/* What stays as it is while these programs run: the kernel takes it for constants. */
const volatile struct {
	u64 room;	     /* so many counters are given out at most */
	u64 noting;	     /* there is a socket path, which notes what its clients dial */
	u64 second;	     /* in jiffies */
	u64 seed;	     /* nobody knows which keys have the same tag */
	u64 pods, pods_mask; /* how names of pods' interfaces begin */
} settings;

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
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* Another owner of a counter, or none any more, is another generation. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u32);
} generations SEC(".maps");

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

/*
 * Numbers that were found or made by key, by place: most keys are found here without a look into the
 * above. A number in 16 bits, and a tag of the key and the counter's generation: with the place that is 64
 * bits of the key, so that it is not read for this.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} recent SEC(".maps");

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
	__type(value, u64);
} epoch SEC(".maps");

/*
 * Which counter a flow had last: its number in 16 bits, and a tag of the flow and the counter's
 * generation. One word, so that it is never read half. It saves the look-up by key, no more: a flow
 * whose word was overwritten by another's finds the same counter again. Conntrack entries that lie
 * side by side have words side by side: a new entry's word is in the cache as its neighbours' are.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, u32);
	__type(value, u64);
} flows SEC(".maps");

/*
 * What the socket path's clients dialled, for flows whose word was overwritten: by conntrack entry, as words
 * are; and for those that were there before the meter, by addresses. Who finds another's here finds none.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, u32);
	__type(value, struct front);
} led SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DIALLED);
	__type(key, u32);
	__type(value, struct front);
} dialled SEC(".maps");

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
	w->last = bpf_jiffies64();
}

/* Where packets are seen. */
enum { LEAVING, ARRIVING };

/* Why packets have no counter. */
enum { UNTRACKED, FULL };

/* is_pods tells interfaces of pods by how their names begin. */
INLINE int is_pods(const struct net_device *d)
{
	return settings.pods_mask && (*(const u64 *)d->name & settings.pods_mask) == settings.pods;
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

/* A connection's ends as they are before any translation. */
struct ends {
	struct ip client, server;
	u16 client_port, port;
	u8 protocol, family;
};

INLINE u64 stir_ends(const struct ends *p)
{
	u64 h = (u64)p->client_port << 32 | (u32)p->port << 16 | (u32)p->protocol << 8 | p->family;
	h = stir(h, (u64)p->client.word[0] << 32 | p->server.word[0]);
	for (int i = 1; i < 4 && p->family == AF_INET6; i++)
		h = stir(h, (u64)p->client.word[i] << 32 | p->server.word[i]);
	return h;
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

INLINE void address_of(struct address *a, const struct ip *ip, const struct key *k, u16 port)
{
	int v6 = k->family == AF_INET6;
	a->ip[0] = v6 ? ip->word[0] : 0;
	a->ip[1] = v6 ? ip->word[1] : 0;
	a->ip[2] = v6 ? ip->word[2] : MAPPED;
	a->ip[3] = v6 ? ip->word[3] : ip->word[0];
	a->port = port;
	a->protocol = k->protocol;
	a->zero = 0;
}

/* just_dialled finds what was dialled on this CPU, if that was at once and leads to the server. It is said once. */
INLINE int just_dialled(const struct address *server, u64 endpoint, struct address *service)
{
	u32 zero = 0;
	struct dial *d = bpf_map_lookup_elem(&dialling, &zero);
	if (!d || bpf_jiffies64() - d->at > 1 || !same(&d->pair.endpoint, server))
		return 0;
	*service = d->pair.service;
	d->at = 0;
	return d->check == check_last(endpoint, mix(service));
}

/* last_dialled finds what was dialled last of an endpoint, or by a client of it; not longer ago than limit. */
INLINE int last_dialled(u64 whose, u64 limit, struct address *service)
{
	const struct last *l = last_of(whose);
	if (!l || bpf_jiffies64() - once(l->at) > limit)
		return 0;
	for (int i = 0; i < 4; i++)
		service->ip[i] = once(l->service.ip[i]);
	service->port = once(l->service.port);
	service->protocol = once(l->service.protocol);
	return once(l->check) == check_last(whose, mix(service));
}

/* find_service finds what the socket path's client dialled whose first packet this is. */
INLINE int find_service(const struct key *k, struct address *service)
{
	struct address server, client;
	address_of(&server, &k->server, k, k->port);
	u64 endpoint = mix(&server);
	if (k->protocol == IPPROTO_UDP) {
		address_of(&client, &k->client, k, 0);
		if (last_dialled(whose_last(endpoint, mix_ip(client.ip)), -1, service))
			return service->protocol;
	}
	if (just_dialled(&server, endpoint, service))
		return service->protocol;
	return last_dialled(whose_last(endpoint, 0), settings.second, service) && service->protocol;
}

/* find_elder finds what was dialled before there was a meter. */
INLINE int find_elder(const struct key *k, u16 client_port, struct front *to)
{
	struct ends p = {k->client, k->server, client_port, k->port, k->protocol, k->family};
	u64 h = stir_ends(&p);
	u32 at = h % DIALLED;
	const struct front *kept = bpf_map_lookup_elem(&dialled, &at);
	return kept && read_front(kept, h, to);
}

/* find_front finds what the socket path's client dialled. The first packet keeps it for the flow. */
INLINE void find_front(struct key *k, u64 whose, u32 slot, u16 client_port, int first)
{
	struct front *kept = bpf_map_lookup_elem(&led, &slot);
	struct front f = {};
	if (!kept)
		return;
	if (first) {
		struct address service = {};
		int v6 = k->family == AF_INET6;
		if (!find_service(k, &service))
			return;
		f.ip.word[0] = v6 ? service.ip[0] : service.ip[3];
		f.ip.word[1] = v6 ? service.ip[1] : 0;
		f.ip.word[2] = v6 ? service.ip[2] : 0;
		f.ip.word[3] = v6 ? service.ip[3] : 0;
		f.port = service.port;
		f.check = check_of(whose, &f);
		*kept = f;
	} else if (!read_front(kept, whose, &f) && !find_elder(k, client_port, &f)) {
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
	if (g && *g < settings.room) {
		number = __sync_fetch_and_add(g, 1) + 1;
		if (number <= settings.room && number < COUNTERS)
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

/* generation_of is that of a counter. Counter 0 is none. */
INLINE const u32 *generation_of(u32 number) { return number ? bpf_map_lookup_elem(&generations, &number) : 0; }

INLINE u64 word_of(u32 number, u64 whose, u32 generation) { return (u64)number << 48 | tag(whose, generation); }

/* read_word finds the number in a word, if the word is whose it should be: else 0. */
INLINE u32 read_word(u64 word, u64 whose, u32 *generation)
{
	u32 number = word >> 48;
	const u32 *g = generation_of(number);
	if (!g)
		return 0;
	*generation = once(*g);
	return word == word_of(number, whose, *generation) ? number : 0;
}

INLINE u64 stir_key(const struct key *k)
{
	const u64 *words = (const u64 *)k;
	u64 h = settings.seed;
	for (int i = 0; i < sizeof(*k) / 8; i++)
		h = stir(h, words[i]);
	return h;
}

/* find_number finds or makes a key's counter. */
INLINE u32 find_number(const struct key *k, u32 *generation)
{
	u64 h = stir_key(k);
	u32 at = h % COUNTERS;
	u64 *there = bpf_map_lookup_elem(&recent, &at);
	if (!there)
		return 0;
	u32 number = read_word(once(*there), h, generation);
	if (number)
		return number;
	number = number_of(k);
	const u32 *g = generation_of(number);
	if (!g)
		return 0;
	*generation = once(*g);
	*(volatile u64 *)there = word_of(number, h, *generation);
	return number;
}

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
	u32 slot = (ct >> 8) % FLOWS, generation = 0;
	u64 *flow = bpf_map_lookup_elem(&flows, &slot);
	if (!flow)
		return NF_ACCEPT;
	u32 number = first ? 0 : read_word(once(*flow), whose, &generation);
	if (!number) {
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
		} else if (settings.noting && k.side & CLIENT && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)) {
			find_front(&k, whose, slot, client_port, first);
		}
		k.cgroup = cgroup_of(ctx, at, reply);
		number = find_number(&k, &generation);
		if (!number) {
			other(ctx, FULL, at, reply);
			return NF_ACCEPT;
		}
		*(volatile u64 *)flow = word_of(number, whose, generation);
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

/* now tells the jiffies. */
SEC("syscall") int now(u64 *jiffies)
{
	*jiffies = bpf_jiffies64();
	return 0;
}
