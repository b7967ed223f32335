/* The card of filler.h. The bits are those of the 82599 datasheet: advanced receive descriptors in
 * 7.1.6.2, advanced transmit descriptors in 7.2.3.2.4. */
#include "filler.h"

#define RX_UPPER (UINT64_C(60) << 32 | 3) /* the length; the status DD and EOP */
#define RX_LOWER UINT64_C(7)              /* the type of the RSS hash: UDP over IPv4 */
#define TX_RS (UINT64_C(1) << 27)
#define TX_DD (UINT64_C(1) << 32)

uint32_t rl_filler_step(void *context)
{
    struct rl_filler *filler = context;
    struct rl_card *card = filler->card;
    uint32_t moved = 0;
    for (uint32_t queue = 0; queue < filler->busy; queue++) {
        const struct rl_descriptor_ring *rx = &card->rx[queue], *tx = &card->tx[queue];
        uint32_t *filled = &filler->filled[queue], *sent = &filler->sent[queue];
        uint32_t posted = (rx->next - 1 - *filled) & rx->mask; /* the tail stays the driver's */
        uint32_t n = posted < RL_BATCH_MAX ? posted : RL_BATCH_MAX;
        for (uint32_t i = 0; i < n; i++, *filled = (*filled + 1) & rx->mask) {
            rx->descriptors[*filled].lower = RX_LOWER;
            __atomic_store_n(&rx->descriptors[*filled].upper, RX_UPPER, __ATOMIC_RELEASE);
        }
        for (; *sent != tx->next; *sent = (*sent + 1) & tx->mask, n++)
            if (tx->descriptors[*sent].upper & TX_RS)
                tx->descriptors[*sent].upper |= TX_DD;
        moved += n;
    }
    return moved;
}
