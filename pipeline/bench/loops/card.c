/* The stand-in of card.h. The bits are those of the 82599 datasheet: advanced receive descriptors
 * in 7.1.6.2, advanced transmit descriptors in 7.2.3.2.4. */
#include "card.h"

#include "../../ports/memory.h"

#define FRAME_BYTES 60
#define RX_UPPER ((uint64_t)FRAME_BYTES << 32 | 3) /* the length; the status DD and EOP */
#define RX_RSS_UDP_IPV4 7                          /* the type of the hash */
#define TX_RS (UINT64_C(1) << 27)
#define TX_DD (UINT64_C(1) << 32)

uint32_t rl_stand_in_step(void *context)
{
    static const uint8_t frame[64] = {
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17,
    };
    struct rl_stand_in *this = context;
    struct rl_descriptor_ring *rx = &this->card->rx[0], *tx = &this->card->tx[0];
    struct rl_memory *memory = this->card->port.memory;
    uint32_t last = (rx->next - 1) & rx->mask; /* the tail: this descriptor is the driver's */
    uint32_t count = 0;
    for (; this->filled != last; this->filled = (this->filled + 1) & rx->mask, count++) {
        struct rl_descriptor *descriptor = &rx->descriptors[this->filled];
        uint8_t *buffer = rl_buffer(memory, rx->buffers[this->filled]);
        memcpy(buffer + memory->headroom, frame, sizeof frame);
        descriptor->lower = (uint64_t)this->filled << 32 | RX_RSS_UDP_IPV4;
        __atomic_store_n(&descriptor->upper, RX_UPPER, __ATOMIC_RELEASE);
    }
    for (; this->sent != tx->next; this->sent = (this->sent + 1) & tx->mask, count++)
        if (tx->descriptors[this->sent].upper & TX_RS)
            tx->descriptors[this->sent].upper |= TX_DD;
    return count;
}
