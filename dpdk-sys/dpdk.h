/* What the director uses of DPDK. Helpers are for macros, and for structures whose insides
 * changed between 22.11, 23.11 and 24.11. */

#include <stddef.h>
#include <stdio.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields of an mbuf are: newer releases keep them in anonymous unions. */
static const size_t DIRECTOR_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t DIRECTOR_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t DIRECTOR_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t DIRECTOR_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t DIRECTOR_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t DIRECTOR_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t DIRECTOR_MBUF_NEXT = offsetof(struct rte_mbuf, next);
static const size_t DIRECTOR_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t DIRECTOR_MBUF_HASH_RSS = offsetof(struct rte_mbuf, hash.rss);
static const uint64_t DIRECTOR_MBUF_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;

static const uint64_t DIRECTOR_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
/* Spread by addresses and, where the packet has them, ports. */
static const uint64_t DIRECTOR_RSS_L3_L4 = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
/* Whole packets of these protocols, by one end only: its address and port. */
static const uint64_t DIRECTOR_RSS_TRANSPORT =
	RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV4_SCTP |
	RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_NONFRAG_IPV6_SCTP;
static const uint64_t DIRECTOR_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint32_t DIRECTOR_LCORE_ID_ANY = LCORE_ID_ANY;
static const size_t DIRECTOR_MEMPOOL_NAMESIZE = RTE_MEMPOOL_NAMESIZE;

static inline int director_errno(void)
{
	return rte_errno;
}

static inline int director_link_up(uint16_t port)
{
	struct rte_eth_link link = {0};

	return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

/* Megabits a second; RTE_ETH_SPEED_NUM_NONE while the link is down. */
static inline uint32_t director_link_speed(uint16_t port)
{
	struct rte_eth_link link = {0};

	return rte_eth_link_get_nowait(port, &link) == 0 ? link.link_speed : RTE_ETH_SPEED_NUM_NONE;
}

static const uint32_t DIRECTOR_SPEED_NONE = RTE_ETH_SPEED_NUM_NONE;
static const uint32_t DIRECTOR_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;

/* Functions, because bindgen knows no constants of 64 bits whose highest are set. */
static inline uint64_t director_rss_by_source(void)
{
	return RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY;
}

static inline uint64_t director_rss_by_destination(void)
{
	return RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY;
}

/* The largest redirection table that director_set_reta() takes. */
static const uint16_t DIRECTOR_RETA_MAX = 4096;

/* Programs a redirection table: the queue of each of its `size` entries. */
static inline int director_set_reta(uint16_t port, const uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[4096 / RTE_ETH_RETA_GROUP_SIZE] = {0};
	uint16_t i;

	for (i = 0; i < size; i++) {
		struct rte_eth_rss_reta_entry64 *group = &groups[i / RTE_ETH_RETA_GROUP_SIZE];

		group->mask |= UINT64_C(1) << i % RTE_ETH_RETA_GROUP_SIZE;
		group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, size);
}
