/* Checksums that the kernel left to a card: shared by the ports on interfaces of the kernel. */
#ifndef RINGLINE_COMPLETE_H
#define RINGLINE_COMPLETE_H
#include <stdint.h>

/* Write the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 into a frame: a virtual interface may
 * leave them to a card that never comes. */
void rl_complete(uint8_t *frame, uint32_t length);
#endif
