/* A bare loop over a capture: it reads, parses and hashes, and keeps of each flow what the plugin
 * `flow_stats` keeps in an analysis, except for the octets of IP and the VLAN. Plain
 * declarations: C and cffi read this file. */
#ifndef RINGLINE_BENCH_BARE_FLOWS_H
#define RINGLINE_BENCH_BARE_FLOWS_H
#include "../../../shm/types.h"

/* A flow: both directions of a 5-tuple. Those in pairs are of the direction from A to B, and of
 * that from B to A; A has the smaller address and port. */
struct rl_bare_flow {
    uint64_t a[2]; /* the address, of IPv4 the second word alone */
    uint64_t b[2];
    uint64_t rest; /* port of A << 32 | port of B << 16 | protocol << 8 | version of IP */
    uint64_t used; /* the hash, never 0 */
    uint64_t packets[2];
    uint64_t bytes[2];
    int64_t first[2]; /* nanoseconds since 1970 */
    int64_t last[2];
    uint64_t flags[2]; /* of TCP */
};

/* Count the packets of the pcap file `fd`, with times in microseconds and numbers in the byte order
 * of this machine, in the table of `slots` flows, a power of two, which begins with zeros. `window`
 * has `room` bytes, more than a packet. Returns the number of packets, or 0 for another file and
 * when the table is full. */
uint64_t rl_bare_flows(int fd, struct rl_bare_flow *flows, uint64_t slots, uint8_t *window,
                       uint64_t room);
#endif
