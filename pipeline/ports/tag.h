/* A VLAN tag in the frame, for cards that do not insert the tag of a reference. */
#ifndef RINGLINE_TAG_H
#define RINGLINE_TAG_H
#include "memory.h"

#define RL_TAG_BYTES 4
#define RL_MAC_BYTES 12 /* the two addresses before a tag */

/* Put the VLAN tag of a reference into its frame. The frame grows towards the front if there is
 * room, else towards the end, where a buffer has room for every frame that can be sent. */
static inline __attribute__((cold)) struct rl_reference rl_tagged(const struct rl_memory *memory,
                                                                  struct rl_reference ref)
{
    uint8_t *frame = rl_buffer(memory, ref.buffer) + ref.offset;
    if (ref.offset >= RL_TAG_BYTES) {
        memmove(frame - RL_TAG_BYTES, frame, RL_MAC_BYTES);
        frame -= RL_TAG_BYTES;
        ref.offset -= RL_TAG_BYTES;
    } else {
        memmove(frame + RL_MAC_BYTES + RL_TAG_BYTES, frame + RL_MAC_BYTES,
                ref.length - RL_MAC_BYTES);
    }
    frame[RL_MAC_BYTES] = 0x81;
    frame[RL_MAC_BYTES + 1] = 0x00;
    frame[RL_MAC_BYTES + 2] = (uint8_t)(ref.vlan_tci >> 8);
    frame[RL_MAC_BYTES + 3] = (uint8_t)ref.vlan_tci;
    ref.length += RL_TAG_BYTES;
    return ref;
}
#endif
