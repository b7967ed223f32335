/* Receiving from a packet socket with nothing around it: the limit of the rows `packet` of
 * `bench xdp`. Plain declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_PACKETS_H
#define RINGLINE_BENCH_PACKETS_H
#include "../../ports/packet/packet.h"

/* For `ticks`, take each frame that arrives, read the first byte of it, and add the frames to
 * `*count`, which another process may read. Returns the sum of the bytes. */
uint64_t rl_bare_packets(struct rl_packet_queue *socket, uint64_t ticks, uint64_t *count);
#endif
