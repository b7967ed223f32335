/* The header view of a frame, and the functions of headers.h and checksums.h as plain Python
 * calls them. Plain declarations: the C compiler and cffi both read this file. */
#ifndef RINGLINE_WORKERS_HEADERS_TYPES_H
#define RINGLINE_WORKERS_HEADERS_TYPES_H
#include <stdint.h>

/* EtherTypes: of IP, and of the tags of IEEE 802.1Q and 802.1ad. */
#define RL_TYPE_IPV4 0x0800
#define RL_TYPE_IPV6 0x86DD
#define RL_TYPE_VLAN 0x8100
#define RL_TYPE_SERVICE_VLAN 0x88A8

/* IP protocol numbers (IANA). */
#define RL_ICMP 1
#define RL_TCP 6
#define RL_UDP 17
#define RL_ICMPV6 58
#define RL_SCTP 132

/* IPv6 extension headers (RFC 8200 4, and the list of IANA). */
#define RL_HOP_BY_HOP 0
#define RL_ROUTING 43
#define RL_FRAGMENT 44
#define RL_AUTHENTICATION 51
#define RL_NO_NEXT_HEADER 59
#define RL_DESTINATION_OPTIONS 60
#define RL_MOBILITY 135
#define RL_HOST_IDENTITY 139
#define RL_SHIM6 140

/* The headers of a frame; headers.py says what each field means. The order is that of the
 * NamedTuple there. */
struct rl_headers {
    int64_t ethertype;
    int64_t vlan;
    int64_t version;
    int64_t l3;
    int64_t l4;
    int64_t payload;
    int64_t end;
    int64_t checksum_at;
    int64_t protocol;
    int64_t fragment;
    int64_t src;
    int64_t dst;
    int64_t src_high;
    int64_t dst_high;
    int64_t sport;
    int64_t dport;
};

void rl_call_headers(const uint8_t *frame, uint32_t length, int64_t *fields);
uint32_t rl_call_checksum(const uint8_t *bytes, uint32_t length, uint64_t initial);
int rl_call_update_checksum(uint8_t *frame, uint32_t length, uint32_t offset, uint64_t before,
                            uint64_t after);
uint32_t rl_call_fix_checksums(uint8_t *frame, uint32_t length);
#endif
