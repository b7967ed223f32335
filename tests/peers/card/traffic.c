#include "traffic.h"

#include <string.h>

/* The kind of a flow is its index modulo the number of kinds. */
enum kind { V4_UDP, V4_TCP, V6_UDP, V6_TCP, V4_ICMP, NOT_IP, KINDS };

static const uint32_t HEADERS[KINDS] = {42, 54, 62, 74, 42, 14}; /* bytes before the number */

static const uint8_t CARD_MAC[6] = {0x02, 0x82, 0x59, 0x90, 0x00, 0x01};
static const uint8_t WIRE_MAC[6] = {0x02, 0x82, 0x59, 0x90, 0x00, 0x02};

/* splitmix64: a pseudo-random number for each `x`. */
static uint64_t scatter(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void checksum_ipv4(uint8_t *header)
{
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)header[i] << 8 | header[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(header + 10, ~sum & 0xffff);
}

static uint32_t flow_of(uint64_t number)
{
    return (uint32_t)(scatter(number) % FLOWS);
}

uint32_t traffic_frame(uint64_t number, uint8_t *frame)
{
    uint64_t chance = scatter(number ^ 0xfeedull);
    uint32_t flow = flow_of(number);
    enum kind kind = (enum kind)(flow % KINDS);
    uint64_t address = scatter(flow);
    uint32_t shortest = HEADERS[kind] + 8 > 60 ? HEADERS[kind] + 8 : 60;
    /* Three in four frames are short, as on real links; every length up to 1514 occurs. */
    uint32_t longest = chance & 3 ? 128 : 1514;
    uint32_t bytes = shortest + (uint32_t)((chance >> 8) % (longest - shortest + 1));
    uint8_t protocol = kind == V4_ICMP ? 1 : kind == V4_TCP || kind == V6_TCP ? 6 : 17;

    memset(frame, 0, HEADERS[kind]);
    memcpy(frame, CARD_MAC, 6);
    memcpy(frame + 6, WIRE_MAC, 6);
    uint8_t *ip = frame + 14, *transport = NULL;
    if (kind == V6_UDP || kind == V6_TCP) {
        put16(frame + 12, 0x86dd);
        ip[0] = 0x60;
        put16(ip + 4, bytes - 54);
        ip[6] = protocol;
        ip[7] = 64;
        put16(ip + 8, 0xfd00);
        memcpy(ip + 16, &address, 8);
        put16(ip + 24, 0xfd01);
        put16(ip + 38, flow);
        transport = ip + 40;
    } else if (kind == NOT_IP) {
        put16(frame + 12, 0x88b5); /* ethertype for local experiments (IEEE 802) */
    } else {
        put16(frame + 12, 0x0800);
        ip[0] = 0x45;
        put16(ip + 2, bytes - 14);
        ip[8] = 64;
        ip[9] = protocol;
        ip[12] = 10;
        memcpy(ip + 13, &address, 3);
        ip[16] = 10;
        put16(ip + 18, flow);
        checksum_ipv4(ip);
        transport = ip + 20;
    }
    if (protocol != 1 && transport) {
        put16(transport, 0xc000 | (flow & 0xff));
        put16(transport + 2, (uint32_t)(address >> 40 & 0x7fff));
        if (protocol == 17)
            put16(transport + 4, bytes - (uint32_t)(transport - frame));
        else
            put16(transport + 12, 0x5010);
    }
    memcpy(frame + HEADERS[kind], &number, 8);
    for (uint32_t at = HEADERS[kind] + 8; at < bytes; at++) {
        frame[at] = (uint8_t)chance;
        chance = chance >> 8 | chance << 56;
        chance += at;
    }
    return bytes;
}

/* Read the number of a frame, at the offset for its headers; false: too short. */
static bool number_of(const uint8_t *frame, uint32_t bytes, uint64_t *number)
{
    uint32_t type = (uint32_t)frame[12] << 8 | frame[13];
    enum kind kind = NOT_IP;
    if (type == 0x0800)
        kind = frame[23] == 17 ? V4_UDP : frame[23] == 6 ? V4_TCP : V4_ICMP;
    else if (type == 0x86dd)
        kind = frame[20] == 17 ? V6_UDP : V6_TCP;
    if (bytes < HEADERS[kind] + 8)
        return false;
    memcpy(number, frame + HEADERS[kind], 8);
    return true;
}

void traffic_check(void *context, const uint8_t *frame, uint32_t bytes)
{
    struct traffic *traffic = context;
    uint8_t expected[1514], addresses[12];
    uint64_t number;
    if (bytes < 60 || !number_of(frame, bytes, &number) || number >= traffic->sent) {
        traffic->damaged++;
        return;
    }
    uint32_t length = traffic_frame(number, expected);
    if (traffic->swapped) {
        memcpy(addresses, expected, 12);
        memcpy(expected, addresses + 6, 6);
        memcpy(expected + 6, addresses, 6);
    }
    if (length != bytes || memcmp(frame, expected, bytes) != 0) {
        traffic->damaged++;
        return;
    }
    if (traffic->seen[number]) {
        traffic->duplicates++;
        return;
    }
    traffic->seen[number] = 1;
    traffic->returned++;
    /* All frames other than IP take the same queue, so they are ordered as one flow. */
    uint32_t flow = flow_of(number);
    uint64_t *last = &traffic->last[flow % KINDS == NOT_IP ? NOT_IP : flow];
    if (number + 1 < *last)
        traffic->out_of_order++;
    else
        *last = number + 1;
}
