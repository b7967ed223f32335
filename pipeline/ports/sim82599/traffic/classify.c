/* Parse a frame, and decide what the card does with it under the present registers. */
#include "../chip/registers.h"

#define TYPE_IPV4 0x0800
#define TYPE_VLAN 0x8100
#define TYPE_IPV6 0x86DD
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_SCTP 132

/* Packet types and status bits of an advanced receive descriptor. */
#define PACKET_IPV4 0x001
#define PACKET_IPV4_OPTIONS 0x002
#define PACKET_IPV6 0x004
#define PACKET_IPV6_EXTENSIONS 0x008
#define PACKET_TCP 0x010
#define PACKET_UDP 0x020
#define PACKET_SCTP 0x040
#define STATUS_DD (1u << 0)
#define STATUS_EOP (1u << 1)
#define STATUS_VP                                                                                  \
    (1u << 3) /* it is tagged; the tag is in the descriptor only where it was stripped */
#define STATUS_UDPCS (1u << 4)
#define STATUS_L4CS (1u << 5)
#define STATUS_IPCS (1u << 6)
#define STATUS_PIF (1u << 7)
#define ERROR_TCPE (1u << 30)
#define ERROR_IPE (1u << 31)

/* One's complement sum of 16-bit words, folded; the checksum is its complement. */
uint32_t rl_sim_checksum(const uint8_t *bytes, uint32_t length, uint32_t sum)
{
    uint64_t total = sum;
    for (uint32_t i = 0; i + 1 < length; i += 2)
        total += rl_sim_be16(bytes + i);
    if (length % 2)
        total += (uint32_t)bytes[length - 1] << 8;
    while (total >> 16)
        total = (total & 0xFFFF) + (total >> 16);
    return (uint32_t)total;
}

/* Checksum status bits for the TCP or UDP segment at `at`, of `bytes` bytes by the IP
 * header; 0 for a segment that is not complete. */
static uint32_t check_transport(const uint8_t *frame, uint32_t length, uint32_t at, uint32_t bytes,
                                const struct rl_sim_layers *layers)
{
    uint32_t address_bytes = layers->ip == 4 ? 8 : 32;
    if (at + (uint64_t)bytes > length || bytes < (layers->tcp ? 20u : 8u))
        return 0;
    if (layers->udp) {
        uint32_t udp_bytes = rl_sim_be16(frame + at + 4);
        if (rl_sim_be16(frame + at + 6) == 0 || udp_bytes < 8 || udp_bytes > bytes)
            return 0; /* no checksum, or a wrong length */
        bytes = udp_bytes;
    }
    uint32_t protocol = layers->tcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    uint32_t sum = rl_sim_checksum(frame + layers->addresses, address_bytes, protocol + bytes);
    uint32_t status = STATUS_L4CS | (layers->udp ? STATUS_UDPCS : 0);
    return rl_sim_checksum(frame + at, bytes, sum) == 0xFFFF ? status : status | ERROR_TCPE;
}

static void parse_transport(const uint8_t *frame, uint32_t length, uint32_t at, uint32_t bytes,
                            uint32_t protocol, struct rl_sim_layers *layers)
{
    if (protocol == PROTOCOL_SCTP)
        layers->packet_type |= PACKET_SCTP;
    if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
        return;
    layers->tcp = protocol == PROTOCOL_TCP;
    layers->udp = protocol == PROTOCOL_UDP;
    layers->packet_type |= layers->tcp ? PACKET_TCP : PACKET_UDP;
    if (at + 4 <= length)
        layers->ports = (uint16_t)at;
    layers->status |= check_transport(frame, length, at, bytes, layers);
}

static void parse_ipv4(const uint8_t *frame, uint32_t length, uint32_t at,
                       struct rl_sim_layers *layers)
{
    const uint8_t *header = frame + at;
    uint32_t header_bytes = 4u * (header[0] & 15);
    if (header[0] >> 4 != 4 || header_bytes < 20 || at + header_bytes > length)
        return;
    layers->ip = 4;
    layers->addresses = (uint16_t)(at + 12);
    layers->packet_type = PACKET_IPV4 | (header_bytes > 20 ? PACKET_IPV4_OPTIONS : 0);
    layers->status |= STATUS_IPCS;
    if (rl_sim_checksum(header, header_bytes, 0) != 0xFFFF)
        layers->status |= ERROR_IPE;
    layers->fragment = rl_sim_be16(header + 4);
    uint32_t total = rl_sim_be16(header + 2);
    if (rl_sim_be16(header + 6) & 0x3FFF) { /* a fragment: neither ports nor a whole checksum */
        if (total >= header_bytes && at + total <= length)
            layers->fragment |= rl_sim_checksum(header + header_bytes, total - header_bytes, 0)
                                << 16;
        return;
    }
    parse_transport(frame, length, at + header_bytes,
                    total > header_bytes ? total - header_bytes : 0, header[9], layers);
}

static void parse_ipv6(const uint8_t *frame, uint32_t length, uint32_t at,
                       struct rl_sim_layers *layers)
{
    const uint8_t *header = frame + at;
    if (header[0] >> 4 != 6 || at + 40 > length)
        return;
    layers->ip = 6;
    layers->addresses = (uint16_t)(at + 8);
    layers->packet_type = PACKET_IPV6;
    switch (header[6]) {
    case 0:  /* hop-by-hop options */
    case 43: /* routing */
    case 44: /* fragment */
    case 50: /* encapsulated, authenticated */
    case 51:
    case 60:  /* destination options */
    case 135: /* mobility */
        layers->packet_type |= PACKET_IPV6_EXTENSIONS;
        return;
    default:
        parse_transport(frame, length, at + 40, rl_sim_be16(header + 4), header[6], layers);
    }
}

/* Parse a frame. `bytes` must have at least 64 readable bytes, even for a smaller
 * `length`. */
void rl_sim_parse(const uint8_t *bytes, uint32_t length, struct rl_sim_layers *layers)
{
    static const uint8_t broadcast[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    memset(layers, 0, sizeof *layers);
    layers->length = length;
    if (length < 14)
        return;
    layers->cast = bytes[0] & 1;
    if (memcmp(bytes, broadcast, 6) == 0)
        layers->cast = 2;
    uint32_t at = 14;
    uint32_t type = rl_sim_be16(bytes + 12);
    if (type == TYPE_VLAN && length >= 18) {
        layers->tagged = 1;
        layers->status = STATUS_VP;
        layers->tag = rl_sim_be16(bytes + 14);
        type = rl_sim_be16(bytes + 16);
        at = 18;
    }
    if (length > RL_SIM_LENGTH_MAX)
        return; /* too long for any MAXFRS */
    if (type == TYPE_IPV4 && at + 20 <= length)
        parse_ipv4(bytes, length, at, layers);
    else if (type == TYPE_IPV6)
        parse_ipv6(bytes, length, at, layers);
}

/* The multicast table is indexed by 12 bits of the last two bytes; MCSTCTRL selects
 * them. */
static bool in_multicast_table(const struct rl_sim *sim, const uint8_t *address)
{
    static const uint8_t shifts[4] = {4, 3, 2, 0};
    uint32_t control = sim->registers[MCSTCTRL / 4];
    if (!(control & MCSTCTRL_MFE))
        return false;
    uint32_t bits = (address[4] | (uint32_t)address[5] << 8) >> shifts[control & 3] & 0xFFF;
    return sim->registers[MTA / 4 + (bits >> 5)] >> (bits & 31) & 1;
}

static bool is_exact(const struct rl_sim *sim, const uint8_t *address)
{
    uint32_t low = address[0] | (uint32_t)address[1] << 8 | (uint32_t)address[2] << 16 |
                   (uint32_t)address[3] << 24;
    uint32_t high = address[4] | (uint32_t)address[5] << 8;
    const uint32_t *filter = &sim->registers[RAL / 4];
    for (uint32_t i = 0; i < 128; i++, filter += 2)
        if (filter[0] == low && (filter[1] & (RAH_AV | 0xFFFF)) == (RAH_AV | high))
            return true;
    return false;
}

static bool passes(const struct rl_sim *sim, const uint8_t *bytes,
                   const struct rl_sim_layers *layers, bool exact)
{
    uint32_t control = sim->registers[FCTRL / 4];
    if ((sim->registers[VLNCTRL / 4] & VLNCTRL_VFE) && layers->tagged) {
        uint32_t vlan = layers->tag & 0xFFF;
        if (!(sim->registers[VFTA / 4 + vlan / 32] >> vlan % 32 & 1))
            return false;
    }
    if (exact)
        return true;
    switch (layers->cast) {
    case 0:
        return control & FCTRL_UPE;
    case 1:
        return (control & FCTRL_MPE) || in_multicast_table(sim, bytes);
    default:
        return control & FCTRL_BAM;
    }
}

uint32_t rl_sim_classify(struct rl_sim *sim, struct rl_sim_frame *frame)
{
    const struct rl_sim_layers *layers = &sim->layers[frame - sim->frames];
    uint32_t longest = sim->frame_max + (layers->tagged ? RL_SIM_TAG : 0);
    bool exact = is_exact(sim, frame->bytes);
    frame->epoch = 0;
    frame->fate = RL_SIM_DELIVER;
    if (layers->length >= 14 && !passes(sim, frame->bytes, layers, exact))
        frame->fate = RL_SIM_FILTERED;
    else if (layers->length > longest)
        frame->fate = RL_SIM_OVERSIZE;
    else if (layers->length < RL_SIM_MIN)
        frame->fate = RL_SIM_UNDERSIZE;
    if (frame->fate != RL_SIM_DELIVER)
        return frame->fate;
    uint32_t type;
    uint32_t queue;
    uint32_t high = rl_sim_rss(sim, frame->bytes, layers, &type, &queue);
    if (!(sim->registers[RXCSUM / 4] & RXCSUM_PCSD))
        high = layers->fragment;
    uint32_t status = STATUS_DD | STATUS_EOP | layers->status | (exact ? 0 : STATUS_PIF);
    frame->lower = (uint64_t)high << 32 | (uint32_t)layers->packet_type << 4 | type;
    frame->upper = (uint64_t)layers->length << 32 | status;
    frame->queue = (uint8_t)queue;
    frame->tagged = layers->tagged;
    frame->size_class = (uint8_t)(rl_sim_size_bin(layers->length) + 8 * layers->cast);
    frame->epoch = sim->epoch;
    return RL_SIM_DELIVER;
}
