/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Services at the socket: connect() and sendmsg() to a Service go straight to one of its
 * endpoints, and the program that asked still sees the Service's address. Whatever is not found
 * here is left as it is: the packet then meets the node's nftables rules, which know every Service.
 */
#include "kernel.h"
#include "sockets.h"

char _license[] SEC("license") = "Dual BSD/GPL";

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

/* One or two IPv4 endpoints with even shares are also beside their frontend: one look-up less. */
struct near {
	u32 ip;
	u16 port;
	u16 zero;
	u32 counter;
};

enum { NEAR = 2 };

/* A frontend has slots 0 to count-1, or those that its weights draw from. */
struct frontend {
	u32 id;
	u32 count;
	u32 flags;
	u32 check; /* of the address, the above and where the near ones are */
	struct near near[NEAR];
};

/* AFFINE: clients are remembered. */
enum { WEIGHTED = 1, HAS_NEAR = 2, AFFINE = 4 };

struct slot_key {
	u32 id;
	u32 slot;
};

struct slot {
	struct address endpoint;
	u32 check; /* of the id and the endpoint */
	u32 counter; /* which of connections is the pair's; 0: none */
};

/* A weighted frontend draws from the first n slots, for the first n whose limit a number is below. */
struct draw {
	u32 n;
	u32 limit;
};

enum { DRAWS = 16 };

struct weights {
	struct draw draws[DRAWS];
};

/* A client of a frontend where clients are remembered. IPv4 as above. */
struct memory_key {
	u32 id; /* the frontend's */
	u32 client[4];
};

/*
 * A copy of nft's note of a client. Times are nanoseconds of the clock that never goes back. Until
 * safe it leads; from then to until it does not, so that no copy leads when its note ends; after that,
 * which only comes if no agent is there, it leads whom it has led within the time of remembering.
 */
struct memory {
	struct address endpoint; /* port 0: the client asked, and is not known */
	u32 slot; /* where the endpoint is */
	u32 check; /* of the key and all of this */
	u32 zero;
	u64 safe, until, timeout;
};

/* The addresses of a pod; zeros: it has none of the family, or several. */
struct pod {
	u32 ip4, ip6[4];
	u32 check; /* of the above and the namespace's cookie */
};

/* After so many seconds without a datagram to a Service the socket's endpoint is chosen anew, as
 * conntrack would (nf_conntrack_udp_timeout_stream). */
enum { IDLE = 120 };

struct settings {
	u32 connected_udp; /* connected UDP sockets are translated: they can be ended */
	u32 optouts;	   /* how many network namespaces are left alone */
	u32 settling;	   /* sockets may have sent before the programs came: see elders */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct slot_key);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct weights);
} weights SEC(".maps");

/* Serving endpoints of UDP frontends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pair);
	__type(value, u32);
} kept SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct memory_key);
	__type(value, struct memory);
} remembered SEC(".maps");

/* When one of the above last led. Only the programs write here once it is there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct memory_key);
	__type(value, u64);
} uses SEC(".maps");

/* Pods of this node, by their network namespace's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct pod);
} pods SEC(".maps");

/* Counted by number: that is one look at memory, and a hash map would be three. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, u32);
	__type(value, u64);
} connections SEC(".maps");

/* Network namespaces whose sockets are left alone, by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u32);
} optouts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} settings SEC(".maps");

/*
 * UDP sockets that were there before the programs. Rules of packets lead them, and the kernel
 * remembers where to: they are left to these until they are closed, or they would move.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u32);
} elders SEC(".maps");

INLINE u64 stir(u64 h, u32 a, u32 b)
{
	h = (h ^ ((u64)a << 32 | b)) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 29;
}

INLINE u64 stir_address(u64 h, const struct address *a)
{
	h = stir(h, a->ip[0], a->ip[1]);
	h = stir(h, a->ip[2], a->ip[3]);
	return stir(h, last_word(a), 0);
}

/* read_address copies one that may change meanwhile. */
INLINE void read_address(struct address *to, const struct address *from)
{
	for (int i = 0; i < 4; i++)
		to->ip[i] = once(from->ip[i]);
	to->port = once(from->port);
	to->protocol = once(from->protocol);
	to->zero = 0;
}

/*
 * An element that somebody deletes while we read it may be used for another key at once. So
 * each carries a check over its key and its value, and what does not pass is as good as absent.
 */
INLINE int find_frontend(const struct address *at, struct frontend *out)
{
	const struct frontend *f = bpf_map_lookup_elem(&frontends, at);
	if (!f)
		return 0;
	out->id = once(f->id);
	out->count = once(f->count);
	out->flags = once(f->flags);
	u64 h = stir(stir(stir_address(1, at), out->id, out->count), out->flags, 0);
	for (int i = 0; i < NEAR; i++) {
		out->near[i].ip = once(f->near[i].ip);
		out->near[i].port = once(f->near[i].port);
		out->near[i].counter = once(f->near[i].counter);
		h = stir(h, out->near[i].ip, out->near[i].port);
	}
	return (u32)h == once(f->check);
}

INLINE int find_slot(u32 id, u32 slot, struct address *out, u32 *counter)
{
	struct slot_key key = {id, slot};
	const struct slot *s = bpf_map_lookup_elem(&slots, &key);
	if (!s)
		return 0;
	read_address(out, &s->endpoint);
	*counter = once(s->counter);
	return (u32)stir(stir_address(2, out), id, 0) == once(s->check);
}

/* below is a random number less than n. */
INLINE u32 below(u32 n) { return (u64)bpf_get_prandom_u32() * n >> 32; }

/* width is how many slots are drawn from this time. */
INLINE u32 width(const struct frontend *f)
{
	if (!(f->flags & WEIGHTED))
		return f->count;
	const struct weights *w = bpf_map_lookup_elem(&weights, &f->id);
	if (!w)
		return f->count;
	u32 toss = bpf_get_prandom_u32();
	for (int i = 0; i < DRAWS - 1; i++)
		if (toss < w->draws[i].limit)
			return w->draws[i].n;
	return w->draws[DRAWS - 1].n;
}

/* choose_near draws one of the endpoints beside the frontend. */
INLINE int choose_near(const struct frontend *f, u8 protocol, struct address *out, u32 *counter)
{
	int second = below(f->count) == 1;
	out->ip[2] = MAPPED;
	out->ip[3] = second ? f->near[1].ip : f->near[0].ip;
	out->port = second ? f->near[1].port : f->near[0].port;
	out->protocol = protocol;
	*counter = second ? f->near[1].counter : f->near[0].counter;
	return 1;
}

/* choose draws an endpoint. A slot that has just gone leads to another try, with slot 0. */
INLINE int choose(const struct address *at, struct frontend *f, struct address *out, u32 *counter)
{
	if (f->flags & HAS_NEAR)
		return choose_near(f, at->protocol, out, counter);
	if (find_slot(f->id, below(width(f)), out, counter))
		return 1;
	return find_frontend(at, f) && find_slot(f->id, 0, out, counter);
}

/* find_client finds the address by which packets of the socket's pod come to this family's Services.
 * It is not known where it is the node's own, or where the socket has another one (source). */
INLINE int find_client(struct bpf_sock_addr *ctx, const struct address *at, const u32 *source, u32 *client)
{
	u64 cookie = bpf_get_netns_cookie(ctx);
	const struct pod *p = bpf_map_lookup_elem(&pods, &cookie);
	if (!p)
		return 0;
	u32 ip4 = once(p->ip4), ip6[4];
	for (int i = 0; i < 4; i++)
		ip6[i] = once(p->ip6[i]);
	u64 h = stir(stir(7, cookie, cookie >> 32), ip4, 0);
	h = stir(stir(h, ip6[0], ip6[1]), ip6[2], ip6[3]);
	if ((u32)h != once(p->check))
		return 0;
	int mapped = !at->ip[0] && !at->ip[1] && at->ip[2] == MAPPED;
	client[0] = mapped ? 0 : ip6[0];
	client[1] = mapped ? 0 : ip6[1];
	client[2] = mapped ? MAPPED : ip6[2];
	client[3] = mapped ? ip4 : ip6[3];
	if (!client[3] && (mapped || !client[0]))
		return 0;
	if (!source[0] && !source[1] && !source[3] && (!source[2] || source[2] == MAPPED))
		return 1;
	return source[0] == client[0] && source[1] == client[1] && source[2] == client[2] && source[3] == client[3];
}

/* recall finds the endpoint to which nft has sent the client before. A client that is not known is
 * noted as one who asked, and left to nft. */
INLINE int recall(struct bpf_sock_addr *ctx, const struct address *at, const u32 *source, const struct frontend *f,
		  struct address *out, u32 *counter)
{
	struct memory_key key = {.id = f->id};
	if (!find_client(ctx, at, source, key.client))
		return 0;
	const struct memory *m = bpf_map_lookup_elem(&remembered, &key);
	if (!m) {
		struct memory asked = {};
		bpf_map_update_elem(&remembered, &key, &asked, BPF_NOEXIST);
		return 0;
	}
	struct address endpoint;
	read_address(&endpoint, &m->endpoint);
	u32 slot = once(m->slot);
	u64 safe = once(m->safe), until = once(m->until), timeout = once(m->timeout);
	u64 h = stir(stir_address(8, &endpoint), key.id, slot);
	h = stir(stir(h, key.client[0], key.client[1]), key.client[2], key.client[3]);
	h = stir(stir(stir(h, safe, safe >> 32), until, until >> 32), timeout, timeout >> 32);
	if ((u32)h != once(m->check) || !endpoint.port)
		return 0;
	u64 *used = bpf_map_lookup_elem(&uses, &key);
	u64 t = bpf_ktime_get_coarse_ns();
	if (!used || (t >= safe && (t < until || t >= *used + timeout)))
		return 0;
	if (!find_slot(f->id, slot, out, counter) || !same(out, &endpoint))
		return 0;
	*used = t;
	return 1;
}

/* lead finds an endpoint for a socket, if it is for us to find one. */
INLINE int lead(struct bpf_sock_addr *ctx, const struct address *at, const u32 *source, struct frontend *f,
		struct address *out, u32 *counter)
{
	if (f->flags & AFFINE)
		return recall(ctx, at, source, f, out, counter);
	return choose(at, f, out, counter);
}

/* bound_to is the address that a socket has before it connects; zeros: none. */
INLINE void bound_to(const struct bpf_sock_addr *ctx, u32 *out)
{
	const struct bpf_sock *sk = ctx->sk;
	u32 four = once(sk->src_ip4); /* all are read: the verifier allows no pointer to one of them */
	for (int i = 0; i < 4; i++)
		out[i] = once(sk->src_ip6[i]);
	if (sk->family != AF_INET)
		return;
	out[0] = out[1] = 0;
	out[2] = MAPPED;
	out[3] = four;
}

INLINE void count(u32 counter)
{
	u64 *n = counter ? bpf_map_lookup_elem(&connections, &counter) : 0;
	if (n)
		__sync_fetch_and_add(n, 1);
}

INLINE const struct settings *get_settings(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&settings, &zero);
}

INLINE int opted_out(struct bpf_sock_addr *ctx, const struct settings *s)
{
	if (!s->optouts)
		return 0;
	u64 cookie = bpf_get_netns_cookie(ctx);
	return bpf_map_lookup_elem(&optouts, &cookie) != 0;
}

INLINE u32 now(void) { return bpf_ktime_get_coarse_ns() / 1000000000; }

/* place_of returns one of the places where a socket may be. */
INLINE struct place *place_of(u64 cookie, u32 which)
{
	u32 at = (cookie ^ which) % PLACES;
	return bpf_map_lookup_elem(&places, &at);
}

/* find_place returns the socket's place, if it has one. */
INLINE struct place *find_place(u64 cookie)
{
	for (u32 i = 0; i < CHOICES; i++) {
		struct place *p = place_of(cookie, i);
		if (p && p->cookie == cookie)
			return p;
	}
	return 0;
}

/* take_place returns the socket's place, or a free one that is the socket's from now on. */
INLINE struct place *take_place(u64 cookie)
{
	struct place *mine = find_place(cookie);
	for (u32 i = 0; i < CHOICES && !mine; i++) {
		struct place *p = place_of(cookie, i);
		if (p && !p->cookie && !__sync_val_compare_and_swap(&p->cookie, 0, cookie))
			mine = p;
	}
	return mine;
}

INLINE void leave_place(u64 cookie)
{
	struct place *p = find_place(cookie);
	if (p)
		__sync_val_compare_and_swap(&p->cookie, cookie, 0);
}

/* peer_of returns what a connected socket was led to, if it was. */
INLINE struct pair *peer_of(u64 cookie, void *sk)
{
	struct place *p = find_place(cookie);
	if (p)
		return &p->pair;
	struct origin *o = bpf_sk_storage_get(&peers, sk, 0, 0);
	return o ? &o->pair : 0;
}

/* remember keeps what a socket was led to, in one place alone. */
INLINE int remember(struct bpf_sock_addr *ctx, struct origin *o)
{
	struct place *p = take_place(bpf_get_socket_cookie(ctx));
	if (p) {
		p->pair = o->pair;
		return 1;
	}
	struct origin *mine = bpf_sk_storage_get(&peers, ctx->sk, o, BPF_SK_STORAGE_GET_F_CREATE);
	if (mine)
		*mine = *o;
	return mine != 0;
}

INLINE void note_last(u64 whose, const struct address *service, u64 t)
{
	struct last *l = last_of(whose);
	u32 check = check_last(whose, mix(service));
	if (!l)
		return;
	l->at = t;
	if (l->check == check)
		return;
	l->service = *service;
	l->check = check;
}

/* note keeps what was dialled for whoever sees the packet. A client that is not known is 0. */
INLINE void note(const struct pair *p, u64 client)
{
	u32 zero = 0;
	u64 endpoint = mix(&p->endpoint), t = bpf_jiffies64();
	note_last(whose_last(endpoint, client), &p->service, t);
	if (client)
		return;
	struct dial *d = bpf_map_lookup_elem(&dialling, &zero);
	if (!d)
		return;
	d->pair = *p;
	d->check = check_last(endpoint, mix(&p->service));
	d->at = t;
}

/* note_call notes what a call dialled, which was led or not. Who connects by UDP sends when he likes: his
 * note is found by who he is, if that is known, and not by the CPU. */
INLINE void note_call(struct bpf_sock_addr *ctx, int led, const u32 *source, const struct pair *to)
{
	struct pair direct = {.endpoint = to->service};
	u32 ip[4] = {};
	u64 client = 0;
	if (to->service.protocol == IPPROTO_UDP && find_client(ctx, &to->service, source, ip))
		client = mix_ip(ip);
	note(led ? to : &direct, client);
}

INLINE int lead_connect(struct bpf_sock_addr *ctx, struct origin *o)
{
	const struct settings *s = get_settings();
	struct frontend f;
	if (!s || !find_frontend(&o->pair.service, &f) || opted_out(ctx, s))
		return 0;
	if (o->pair.service.protocol == IPPROTO_UDP && !s->connected_udp)
		return 0;
	u32 counter;
	u32 source[4] = {};
	if (f.flags & AFFINE)
		bound_to(ctx, source);
	if (!lead(ctx, &o->pair.service, source, &f, &o->pair.endpoint, &counter))
		return 0;
	if (!remember(ctx, o))
		return 0;
	count(counter);
	return 1;
}

INLINE int connect(struct bpf_sock_addr *ctx, struct origin *o)
{
	int led = lead_connect(ctx, o);
	u32 source[4] = {};
	if (o->pair.service.protocol == IPPROTO_UDP)
		bound_to(ctx, source);
	note_call(ctx, led, source, &o->pair);
	return led;
}

/* disconnect forgets where a socket was led to before, if it was. */
INLINE void disconnect(struct bpf_sock_addr *ctx)
{
	leave_place(bpf_get_socket_cookie(ctx));
	if (bpf_sk_storage_get(&peers, ctx->sk, 0, 0))
		bpf_sk_storage_delete(&peers, ctx->sk);
}

INLINE int is_kept(const struct pair *p) { return bpf_map_lookup_elem(&kept, p) != 0; }

/* The kernel calls sendmsg and recvmsg programs with the socket locked: nobody else writes here. */

/* forget_direct lets answers of an endpoint be its own again, once the socket speaks to it directly. */
INLINE void forget_direct(struct bpf_sock_addr *ctx, const struct address *to)
{
	struct talks *t = bpf_sk_storage_get(&conversations, ctx->sk, 0, 0);
	if (!t)
		return;
	for (int i = 0; i < TALKS; i++)
		if (same(&t->with[i].pair.endpoint, to))
			t->with[i].pair.service.protocol = 0;
}

INLINE int make_elder(void *sk)
{
	u32 yes = 1;
	return bpf_sk_storage_get(&elders, sk, &yes, BPF_SK_STORAGE_GET_F_CREATE) != 0;
}

INLINE int is_elder(void *sk) { return bpf_sk_storage_get(&elders, sk, 0, 0) != 0; }

/* talks_of finds or makes the place of a socket's conversations. An elder has none. */
INLINE struct talks *talks_of(struct bpf_sock_addr *ctx, const struct settings *s)
{
	struct talks none = {};
	struct talks *t = bpf_sk_storage_get(&conversations, ctx->sk, 0, 0);
	if (t)
		return t;
	if (s->settling) {
		make_elder(ctx->sk);
		return 0;
	}
	if (is_elder(ctx->sk))
		return 0;
	return bpf_sk_storage_get(&conversations, ctx->sk, &none, BPF_SK_STORAGE_GET_F_CREATE);
}

/* talk finds or makes the socket's conversation with a Service. */
INLINE int talk(struct bpf_sock_addr *ctx, const struct settings *s, const u32 *source, struct origin *o, struct frontend *f)
{
	struct talks *t = talks_of(ctx, s);
	if (!t)
		return 0;
	o->used = now();
	int free = -1;
	for (int i = 0; i < TALKS; i++) {
		struct origin *w = &t->with[i];
		int idle = !w->pair.service.protocol || o->used - w->used > IDLE;
		if (same(&w->pair.service, &o->pair.service)) {
			if (!idle && is_kept(&w->pair)) {
				w->used = o->used;
				o->pair.endpoint = w->pair.endpoint;
				return 1;
			}
			idle = 1;
			w->pair.service.protocol = 0;
		}
		if (idle)
			free = i;
	}
	u32 counter;
	if (free < 0 || !lead(ctx, &o->pair.service, source, f, &o->pair.endpoint, &counter))
		return 0;
	/* Two Services with one endpoint would be one to recvmsg: the second is not ours. */
	for (int i = 0; i < TALKS; i++)
		if (same(&t->with[i].pair.endpoint, &o->pair.endpoint) && t->with[i].pair.service.protocol) {
			if (o->used - t->with[i].used <= IDLE)
				return 0;
			t->with[i].pair.service.protocol = 0;
		}
	for (int i = 0; i < TALKS; i++)
		if (i == free)
			t->with[i] = *o;
	count(counter);
	return 1;
}

INLINE int lead_datagram(struct bpf_sock_addr *ctx, const u32 *source, struct origin *o)
{
	const struct settings *s = get_settings();
	struct frontend f;
	if (!s || !find_frontend(&o->pair.service, &f) || opted_out(ctx, s)) {
		forget_direct(ctx, &o->pair.service);
		return 0;
	}
	/* A connected socket hears only its peer, whomever it sends to. */
	if (ctx->sk->state == TCP_ESTABLISHED) {
		struct pair *peer = peer_of(bpf_get_socket_cookie(ctx), ctx->sk);
		if (peer && same(&peer->service, &o->pair.service)) {
			o->pair.endpoint = peer->endpoint;
			return 1;
		}
	}
	return talk(ctx, s, source, o, &f);
}

INLINE int sendmsg(struct bpf_sock_addr *ctx, const u32 *source, struct origin *o)
{
	int led = lead_datagram(ctx, source, o);
	note_call(ctx, led, source, &o->pair);
	return led;
}

/* origin_of finds the Service in whose name an endpoint speaks. */
INLINE int origin_of(struct bpf_sock_addr *ctx, const struct address *from, struct address *out)
{
	if (ctx->sk->state == TCP_ESTABLISHED) {
		struct pair *peer = peer_of(bpf_get_socket_cookie(ctx), ctx->sk);
		if (peer && same(&peer->endpoint, from)) {
			*out = peer->service;
			return 1;
		}
	}
	struct talks *t = bpf_sk_storage_get(&conversations, ctx->sk, 0, 0);
	if (!t)
		return 0;
	for (int i = 0; i < TALKS; i++)
		if (t->with[i].pair.service.protocol && same(&t->with[i].pair.endpoint, from)) {
			*out = t->with[i].pair.service;
			return 1;
		}
	return 0;
}

INLINE int peer_name(struct bpf_sock_addr *ctx, const struct address *peer, struct address *out)
{
	struct pair *p = peer_of(bpf_get_socket_cookie(ctx), ctx->sk);
	if (!p || !same(&p->endpoint, peer))
		return 0;
	*out = p->service;
	return 1;
}

INLINE void read4(const struct bpf_sock_addr *ctx, struct address *a)
{
	a->ip[2] = MAPPED;
	a->ip[3] = ctx->user_ip4;
	a->port = ctx->user_port;
	a->protocol = ctx->protocol;
}

INLINE void write4(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip4 = a->ip[3];
	ctx->user_port = a->port;
}

INLINE void read6(const struct bpf_sock_addr *ctx, struct address *a)
{
	a->ip[0] = ctx->user_ip6[0];
	a->ip[1] = ctx->user_ip6[1];
	a->ip[2] = ctx->user_ip6[2];
	a->ip[3] = ctx->user_ip6[3];
	a->port = ctx->user_port;
	a->protocol = ctx->protocol;
}

/* sent_from4 and sent_from6 tell the source of a datagram that the caller chose; zeros: none. */
INLINE void sent_from4(const struct bpf_sock_addr *ctx, u32 *out)
{
	out[2] = MAPPED;
	out[3] = ctx->msg_src_ip4;
}

INLINE void sent_from6(const struct bpf_sock_addr *ctx, u32 *out)
{
	out[0] = ctx->msg_src_ip6[0];
	out[1] = ctx->msg_src_ip6[1];
	out[2] = ctx->msg_src_ip6[2];
	out[3] = ctx->msg_src_ip6[3];
}

INLINE void write6(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip6[0] = a->ip[0];
	ctx->user_ip6[1] = a->ip[1];
	ctx->user_ip6[2] = a->ip[2];
	ctx->user_ip6[3] = a->ip[3];
	ctx->user_port = a->port;
}

INLINE int ours(const struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP;
}

/* Every program lets the call go on (1), translated or not. */
#define FAMILY(n)                                                                                                      \
	SEC("cgroup/connect" #n) int connect##n(struct bpf_sock_addr *ctx)                                             \
	{                                                                                                              \
		struct origin o = {};                                                                                  \
		if (!ours(ctx))                                                                                        \
			return 1;                                                                                      \
		read##n(ctx, &o.pair.service);                                                                         \
		if (connect(ctx, &o))                                                                                  \
			write##n(ctx, &o.pair.endpoint);                                                               \
		else                                                                                                   \
			disconnect(ctx);                                                                               \
		return 1;                                                                                              \
	}                                                                                                              \
	SEC("cgroup/sendmsg" #n) int sendmsg##n(struct bpf_sock_addr *ctx)                                             \
	{                                                                                                              \
		struct origin o = {};                                                                                  \
		u32 source[4] = {};                                                                                    \
		if (ctx->protocol != IPPROTO_UDP)                                                                      \
			return 1;                                                                                      \
		read##n(ctx, &o.pair.service);                                                                         \
		sent_from##n(ctx, source);                                                                             \
		if (sendmsg(ctx, source, &o))                                                                          \
			write##n(ctx, &o.pair.endpoint);                                                               \
		return 1;                                                                                              \
	}                                                                                                              \
	SEC("cgroup/recvmsg" #n) int recvmsg##n(struct bpf_sock_addr *ctx)                                             \
	{                                                                                                              \
		struct address from = {}, service;                                                                     \
		if (ctx->protocol != IPPROTO_UDP)                                                                      \
			return 1;                                                                                      \
		read##n(ctx, &from);                                                                                   \
		if (origin_of(ctx, &from, &service))                                                                   \
			write##n(ctx, &service);                                                                       \
		return 1;                                                                                              \
	}                                                                                                              \
	SEC("cgroup/getpeername" #n) int getpeername##n(struct bpf_sock_addr *ctx)                                     \
	{                                                                                                              \
		struct address peer = {}, service;                                                                     \
		if (!ours(ctx))                                                                                        \
			return 1;                                                                                      \
		read##n(ctx, &peer);                                                                                   \
		if (peer_name(ctx, &peer, &service))                                                                   \
			write##n(ctx, &service);                                                                       \
		return 1;                                                                                              \
	}

FAMILY(4)
FAMILY(6)

/* released forgets a socket that is being closed. */
SEC("cgroup/sock_release") int released(struct bpf_sock *sk)
{
	if (sk->protocol == IPPROTO_TCP || sk->protocol == IPPROTO_UDP)
		leave_place(bpf_get_socket_cookie(sk));
	return 1;
}

/* end_udp ends connected UDP sockets that were led to an endpoint which no longer serves: they can
 * never hear from it again, and connect anew. Unconnected ones go on: ending would change their port. */
SEC("iter/udp") int end_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;
	if (!sk)
		return 0;
	struct pair *peer = peer_of(bpf_get_socket_cookie(sk), sk);
	if (!peer || peer->service.protocol != IPPROTO_UDP || is_kept(peer))
		return 0;
	struct sock_common *c = &sk->inet.sk.__sk_common;
	if (c->skc_state != TCP_ESTABLISHED || c->skc_dport != peer->endpoint.port)
		return 0;
	u32 last = c->skc_family == AF_INET ? c->skc_daddr : c->skc_v6_daddr.in6_u.u6_addr32[3];
	if (last == peer->endpoint.ip[3])
		bpf_sock_destroy(c);
	return 0;
}

/* settle marks UDP sockets that nobody led yet: see elders. */
SEC("iter/udp") int settle(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;
	if (sk && !bpf_sk_storage_get(&conversations, sk, 0, 0))
		make_elder(sk);
	return 0;
}

/* Digests of all elements, added up, by table: see wire.go. */
struct sums {
	u64 frontends, slots, weights, kept;
	u64 frontend_count, slot_count, weight_count, kept_count;
};

static long sum_frontend(void *map, const struct address *key, const struct frontend *f, struct sums *s)
{
	u64 h = stir(stir(stir_address(3, key), f->id, f->count), f->flags, f->check);
	for (int i = 0; i < NEAR; i++)
		h = stir(stir(h, f->near[i].ip, f->near[i].port), f->near[i].counter, 0);
	s->frontends += h;
	s->frontend_count++;
	return 0;
}

static long sum_slot(void *map, const struct slot_key *key, const struct slot *v, struct sums *s)
{
	s->slots += stir(stir(stir_address(4, &v->endpoint), key->id, key->slot), v->check, v->counter);
	s->slot_count++;
	return 0;
}

static long sum_weights(void *map, const u32 *key, const struct weights *w, struct sums *s)
{
	u64 h = stir(5, *key, 0);
	for (int i = 0; i < DRAWS; i++)
		h = stir(h, w->draws[i].n, w->draws[i].limit);
	s->weights += h;
	s->weight_count++;
	return 0;
}

static long sum_kept(void *map, const struct pair *key, const u32 *value, struct sums *s)
{
	s->kept += stir_address(stir_address(6, &key->service), &key->endpoint);
	s->kept_count++;
	return 0;
}

/* sum looks at every element where it lies: that is several times cheaper than to copy them out. */
SEC("syscall") int sum(struct sums *out)
{
	struct sums s = {};
	bpf_for_each_map_elem(&frontends, sum_frontend, &s, 0);
	bpf_for_each_map_elem(&slots, sum_slot, &s, 0);
	bpf_for_each_map_elem(&weights, sum_weights, &s, 0);
	bpf_for_each_map_elem(&kept, sum_kept, &s, 0);
	*out = s;
	return 0;
}
