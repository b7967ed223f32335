/* Transmit offloads: checksums that the card inserts, and TCP segmentation, as a context
 * descriptor says (datasheet 7.2.4, 7.2.5).
 *
 * Software puts the checksum of the pseudo header into the checksum field; for segmentation
 * without the length. The card adds the rest. It sums an IPv4 header with the checksum field as it
 * stands, so software writes 0 there. (Linux's ixgbe does, and for a tunnel writes a number that
 * takes the inner headers out of the sum again.) */
#include "../chip/registers.h"
#include "transmit.h"

#define IP4_TOTAL 2
#define IP4_ID 4
#define IP4_SUM 10
#define IP6_PAYLOAD 4
#define TCP_SEQUENCE 4
#define TCP_FLAGS 13
#define TCP_SUM 16
#define UDP_SUM 6
#define SCTP_SUM 8
#define TCP_FIN_PSH 0x09
#define TCP_CWR 0x80

struct plan {
    uint32_t ip;   /* offset of the IP header */
    uint32_t l4;   /* offset of the L4 header */
    uint32_t mss;  /* bytes of payload in a segment; 0: no segmentation */
    uint32_t head; /* bytes of all headers, with segmentation */
    uint32_t type; /* CONTEXT_L4T */
    bool ipv4;
    bool ip_sum;
    bool l4_sum;
};

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)rl_sim_be16(at) << 16 | rl_sim_be16(at + 2);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xFFFF);
}

/* CRC-32C of an SCTP packet whose field is 0 (RFC 9260, appendix A). */
static uint32_t crc32c(const uint8_t *bytes, uint32_t length)
{
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static void insert_sums(uint8_t *frame, uint32_t length, const struct plan *plan)
{
    if (plan->ip_sum && plan->ipv4)
        put16(frame + plan->ip + IP4_SUM,
              ~rl_sim_checksum(frame + plan->ip, plan->l4 - plan->ip, 0) & 0xFFFF);
    if (!plan->l4_sum)
        return;
    uint32_t bytes = length - plan->l4;
    uint8_t *l4 = frame + plan->l4;
    if (plan->type == CONTEXT_SCTP) {
        memset(l4 + SCTP_SUM, 0, 4);
        uint32_t crc = crc32c(l4, bytes);
        memcpy(l4 + SCTP_SUM, &crc, sizeof crc);
        return;
    }
    uint8_t *field = l4 + (plan->type == CONTEXT_TCP ? TCP_SUM : UDP_SUM);
    uint32_t sum = ~rl_sim_checksum(l4, bytes, plan->mss ? bytes : 0) & 0xFFFF;
    put16(field, sum == 0 && plan->type == CONTEXT_UDP ? 0xFFFF : sum);
}

/* A problem of the context, or NULL. */
static const char *read_plan(const struct rl_sim_tx_queue *queue, uint32_t length,
                             struct plan *plan)
{
    const struct rl_sim_context *context = &queue->contexts[INDEX(queue->first) & 1];
    static const uint32_t shortest[4] = {8, 20, 12, 0};
    if (INDEX(queue->first) > 1 || !context->valid)
        return "it asks for an offload, but no context descriptor says where the headers are";
    plan->ip = CONTEXT_MACLEN(context->low);
    plan->l4 = plan->ip + CONTEXT_IPLEN(context->low);
    plan->type = CONTEXT_L4T(context->high);
    plan->ipv4 = (context->high & CONTEXT_IPV4) != 0;
    plan->ip_sum = (queue->first & IXSM) != 0;
    plan->l4_sum = (queue->first & TXSM) != 0;
    plan->mss = queue->first & TSE ? CONTEXT_MSS(context->high) : 0;
    plan->head = plan->l4 + CONTEXT_L4LEN(context->high);
    if (plan->ip < 14 || plan->l4 - plan->ip < 20 || plan->l4 > length)
        return "MACLEN or IPLEN of its context do not fit the packet";
    if (plan->l4_sum && (plan->type == 3 || plan->l4 + shortest[plan->type] > length))
        return "the packet has no L4 header of the type in its context";
    if (!(queue->first & TSE))
        return NULL;
    if (plan->type != CONTEXT_TCP)
        return "segmentation of anything but TCP is not supported by the model";
    if (plan->mss == 0 || plan->head - plan->l4 < 20 || plan->head >= length)
        return "MSS or L4LEN of its context do not fit the packet";
    if (PAYLEN(queue->first) != length - plan->head)
        return "with segmentation, PAYLEN is the length of the TCP payload, and it differs";
    return NULL;
}

static void send_segments(struct rl_sim *sim, struct rl_sim_tx_queue *queue, uint32_t length,
                          const struct plan *plan, int32_t tag)
{
    const uint8_t *whole = sim->scratch;
    uint8_t *frame = sim->segment;
    uint32_t sequence = get32(whole + plan->l4 + TCP_SEQUENCE);
    uint32_t id = plan->ipv4 ? rl_sim_be16(whole + plan->ip + IP4_ID) : 0;
    for (uint32_t done = plan->head; done < length;) {
        uint32_t part = length - done < plan->mss ? length - done : plan->mss;
        uint32_t bytes = plan->head + part;
        bool first = done == plan->head, last = done + part == length;
        memcpy(frame, whole, plan->head);
        memcpy(frame + plan->head, whole + done, part);
        uint8_t *ip = frame + plan->ip, *tcp = frame + plan->l4;
        if (plan->ipv4) {
            put16(ip + IP4_TOTAL, bytes - plan->ip);
            put16(ip + IP4_ID, id++ & 0xFFFF);
        } else {
            put16(ip + IP6_PAYLOAD, bytes - plan->ip - 40);
        }
        put32(tcp + TCP_SEQUENCE, sequence);
        if (!last)
            tcp[TCP_FLAGS] &= (uint8_t)~TCP_FIN_PSH;
        if (!first)
            tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
        insert_sums(frame, bytes, plan);
        rl_sim_emit(sim, queue, frame, bytes, tag);
        sequence += part;
        done += part;
    }
}

const char *rl_sim_offload(struct rl_sim *sim, struct rl_sim_tx_queue *queue, int32_t tag)
{
    struct plan plan;
    uint32_t length = queue->segment_bytes;
    const char *trouble = read_plan(queue, length, &plan);
    if (trouble != NULL)
        return trouble;
    uint32_t longest = plan.mss ? plan.head + plan.mss : length;
    if (longest > sim->frame_max)
        return "the packet, or a segment of it, is longer than MAXFRS, or than 1518 bytes without "
               "jumbo frames";
    rl_sim_gather(sim, sim->scratch, queue->segments, queue->segment_count);
    if (plan.mss) {
        send_segments(sim, queue, length, &plan, tag);
    } else {
        insert_sums(sim->scratch, length, &plan);
        rl_sim_emit(sim, queue, sim->scratch, length, tag);
    }
    return NULL;
}
