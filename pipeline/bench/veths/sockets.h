/* Forwarding between two AF_XDP sockets with nothing around it: the limit of `bench xdp`. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_SOCKETS_H
#define RINGLINE_BENCH_SOCKETS_H
#include "../../ports/xdp/xdp.h"

/* Give the buffers 0 … `count` - 1 to the fill ring of `from`. */
void rl_bare_sockets_post(struct rl_xdp_queue *from, uint32_t count);

/* For `ticks`, send on `to` what arrives on `from`. Both sockets have the same memory. Returns how
 * many packets were put on the TX ring. */
uint64_t rl_bare_sockets(struct rl_xdp_queue *from, struct rl_xdp_queue *to, uint64_t ticks);
#endif
