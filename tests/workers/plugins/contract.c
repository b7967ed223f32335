/* The plugin of test_contract.py in C: the frame's first byte selects the action. */
#include "plugin.h"

static inline int64_t judge(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    switch (frame[0]) {
    case 0:
        return meta->port;
    case 1:
        return RL_VERDICT_DROP;
    case 2:
        return 1;
    case 4:
        return 300;
    case 5:
        return -1;
    case 6:
        return 254;
    case 7:
        return 1ll << 40;
    case 8:
        frame[meta->length - 1] = 0xaa;
        return 0;
    case 9:
        meta->offset -= 4;
        meta->length += 4;
        memmove(frame - 4, frame, 12);
        return 0;
    case 10: {
        uint8_t *made = rl_create(batch, 60, 1);
        if (!made)
            return RL_VERDICT_DROP;
        memset(made, 0x55, 60);
        return 0;
    }
    case 11:
        meta->vlan_tci = 7;
        meta->flags |= RL_FLAG_VLAN;
        return 0;
    case 12:
        return batch->ports;
    default:
        return 0;
    }
}
RL_PLUGIN(contract, judge)
