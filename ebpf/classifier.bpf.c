// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
/*
 * The XDP classifier: which received frames belong to xtipc.
 *
 * One instance serves one interface. It redirects to the AF_XDP socket of the
 * receiving queue exactly the frames that are
 *   - of TIPC's ethertype, untagged or behind one 802.1Q tag,
 *   - on a configured VLAN (VLAN 0: untagged, or a tag that carries priority only),
 *   - sent to the interface's own address, or to a group address. XDP also sees
 *     what a bridge floods to other hosts, and a 24-byte TIPC header names no
 *     destination node: without this test a foreign frame would be taken;
 * and, for a UDP bearer, untagged datagrams to its port and one of its addresses.
 * Fragments and packets with IP options or extension headers are the kernel's.
 * Every other frame goes on to the kernel as if the program were not there.
 * Each frame counts in exactly one counter of its queue.
 *
 * Only the linear head is read, so a multi-buffer frame needs no special care.
 * The loader (src/classifier.rs) relies on the map and program names and on the
 * order of the counters.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Receive queues with a socket and a counter slot of their own. Queues above share
 * the last counter slot and pass to the kernel. */
#define QUEUES_MAX 256
#define VLAN_VID_MASK 0x0fff
/* Version 4, and a header of five words: no options. */
#define IPV4_PLAIN 0x45
#define IPV4_FRAGMENT 0x3fff

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct queue_counters {
	__u64 redirected;
	__u64 passed_other;
	__u64 passed_foreign_mac;
	__u64 passed_vlan;
	__u64 no_socket;
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* The interface's address as a number, first byte highest. One 64-bit word, so that
 * an update from user space is never seen half done. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} own_mac SEC(".maps");

/* One bit for each VLAN id. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (VLAN_VID_MASK + 1) / 64);
	__type(key, __u32);
	__type(value, __u64);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, struct queue_counters);
} counters SEC(".maps");

/* Where datagrams for us go to. Written before the program is attached. */
struct datagrams {
	__be16 type; /* the ethertype of their family; 0: there are none */
	__be16 port;
	/* An IPv4 address is in the first word. */
	__be32 own[4];
	__be32 group[4]; /* or the own one once more */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct datagrams);
} datagrams SEC(".maps");

static __always_inline int vlan_is_configured(__u32 vlan)
{
	__u32 word = vlan / 64;
	__u64 *bits = bpf_map_lookup_elem(&vlans, &word);

	return bits && (*bits >> (vlan % 64) & 1);
}

static __always_inline int is_for_this_host(const unsigned char *mac)
{
	__u32 first = 0;
	__u64 *own, destination;

	if (mac[0] & 1)
		return 1;
	destination = (__u64)mac[0] << 40 | (__u64)mac[1] << 32 | (__u64)mac[2] << 24 |
		      (__u64)mac[3] << 16 | (__u64)mac[4] << 8 | mac[5];
	own = bpf_map_lookup_elem(&own_mac, &first);
	return own && *own == destination;
}

static __always_inline int is_ipv6(const struct in6_addr *address, const __be32 *wanted)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return words[0] == wanted[0] && words[1] == wanted[1] && words[2] == wanted[2] &&
	       words[3] == wanted[3];
}

/* Whether this is a whole UDP packet to the port and an address of the bearer. */
static __always_inline int is_our_datagram(struct ethhdr *eth, void *end)
{
	__u32 first = 0;
	struct datagrams *ours = bpf_map_lookup_elem(&datagrams, &first);

	if (!ours || (void *)(eth + 1) > end || eth->h_proto != ours->type)
		return 0;
	if (ours->type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		struct udphdr *udp = (void *)(ip + 1);

		return (void *)(udp + 1) <= end && *(__u8 *)ip == IPV4_PLAIN &&
		       !(ip->frag_off & bpf_htons(IPV4_FRAGMENT)) && ip->protocol == IPPROTO_UDP &&
		       udp->dest == ours->port &&
		       (ip->daddr == ours->own[0] || ip->daddr == ours->group[0]);
	}
	if (ours->type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		struct udphdr *udp = (void *)(ip + 1);

		return (void *)(udp + 1) <= end && ip->version == 6 && ip->nexthdr == IPPROTO_UDP &&
		       udp->dest == ours->port &&
		       (is_ipv6(&ip->daddr, ours->own) || is_ipv6(&ip->daddr, ours->group));
	}
	return 0;
}

SEC("xdp.frags")
int xtipc_classify(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct vlan_tag *tag = (void *)(eth + 1);
	__u32 queue = ctx->rx_queue_index;
	__u32 slot = queue < QUEUES_MAX ? queue : QUEUES_MAX - 1;
	struct queue_counters *count = bpf_map_lookup_elem(&counters, &slot);
	__u32 vlan = 0;
	__be16 type = 0;

	if (!count)
		return XDP_PASS;

	if ((void *)(eth + 1) <= end)
		type = eth->h_proto;
	if (type == bpf_htons(ETH_P_8021Q) && (void *)(tag + 1) <= end) {
		vlan = bpf_ntohs(tag->tci) & VLAN_VID_MASK;
		type = tag->type;
	}

	if (type == bpf_htons(ETH_P_TIPC)) {
		if (!vlan_is_configured(vlan)) {
			count->passed_vlan++;
			return XDP_PASS;
		}
	} else if (!is_our_datagram(eth, end)) {
		count->passed_other++;
		return XDP_PASS;
	}
	if (!is_for_this_host(eth->h_dest)) {
		count->passed_foreign_mac++;
		return XDP_PASS;
	}
	/* The flags are the verdict when the queue has no socket. */
	if (bpf_redirect_map(&sockets, queue, XDP_PASS) != XDP_REDIRECT) {
		count->no_socket++;
		return XDP_PASS;
	}
	count->redirected++;
	return XDP_REDIRECT;
}

/* No helper above is reserved to GPL programs; the licence is stated as the sources are. */
char _license[] SEC("license") = "Dual MIT/GPL";
