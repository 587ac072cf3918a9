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

static const uint64_t DIRECTOR_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
/* Spread by addresses and, where the packet has them, ports. */
static const uint64_t DIRECTOR_RSS_L3_L4 = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
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
