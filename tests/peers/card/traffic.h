/* Numbered frames: a frame is determined by its number, so that returned frames can
 * be compared byte by byte. */
#ifndef TRAFFIC_H
#define TRAFFIC_H
#include <stdbool.h>
#include <stdint.h>

#define FLOWS 256

struct traffic {
    uint64_t frames; /* to send in total */
    bool swapped;    /* frames return with source and destination address swapped */
    uint64_t sent;
    uint64_t returned; /* undamaged frames, each counted once */
    uint64_t duplicates;
    uint64_t damaged;
    uint64_t out_of_order;
    uint8_t *seen;        /* by number */
    uint64_t last[FLOWS]; /* by flow: number + 1 of the last frame to return */
};

/* Write frame `number` to `frame`, which has room for 1514 bytes; returns its length. */
uint32_t traffic_frame(uint64_t number, uint8_t *frame);

/* Check a frame that the card transmitted; `context` is the struct traffic. */
void traffic_check(void *context, const uint8_t *frame, uint32_t bytes);
#endif
