/* Numbered frames: everything about a frame follows from its number, so that
 * what comes back can be compared byte by byte with what went in. */
#ifndef TRAFFIC_H
#define TRAFFIC_H
#include <stdbool.h>
#include <stdint.h>

#define FLOWS 256

struct traffic {
    uint64_t frames; /* to send in all */
    bool swapped;    /* they come back with their addresses swapped */
    uint64_t sent;
    uint64_t returned; /* right ones, each counted once */
    uint64_t duplicates;
    uint64_t damaged;
    uint64_t out_of_order;
    uint8_t *seen;        /* by number */
    uint64_t last[FLOWS]; /* by what must stay in order: number + 1 of the last to return */
};

/* Frame `number` into `frame`, which has room for 1514 bytes; returns its length. */
uint32_t traffic_frame(uint64_t number, uint8_t *frame);

/* A frame that the card transmitted; `context` is the struct traffic. */
void traffic_check(void *context, const uint8_t *frame, uint32_t bytes);
#endif
