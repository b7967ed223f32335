/* Which frames a card can send. The driver checks every returned reference with it, and
 * `ringline try` every frame that a plugin sends. */
#ifndef RINGLINE_FRAMES_H
#define RINGLINE_FRAMES_H
#include "types.h"

/* The frame's length with the VLAN tag that the card inserts. */
static inline uint32_t rl_frame_on_wire(const struct rl_reference *ref)
{
    uint32_t tag = ref->flags & RL_FLAG_VLAN ? 4 : 0; /* bytes */
    return ref->length + tag;
}

/* Whether the frame lies inside its buffer of `room` bytes and has a length that a card sends: up
 * to `longest` bytes. */
static inline int rl_frame_fits(const struct rl_reference *ref, uint32_t room, uint32_t longest)
{
    return ref->length >= RL_FRAME_MIN && rl_frame_on_wire(ref) <= longest &&
           (uint32_t)ref->offset + ref->length <= room;
}

/* Why a frame does not fit: RL_REFUSED_*. */
static inline uint32_t rl_frame_cause(const struct rl_reference *ref, uint32_t longest)
{
    if (ref->length < RL_FRAME_MIN)
        return RL_REFUSED_TOO_SHORT;
    if (rl_frame_on_wire(ref) > longest)
        return RL_REFUSED_TOO_LONG;
    return RL_REFUSED_OUTSIDE_BUFFER;
}
#endif
