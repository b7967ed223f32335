/* Record transmitted frames to a pcap file: nanosecond time stamps, Ethernet. Records
 * are collected in a buffer. When a write fails, the file keeps the complete records
 * that fit, and recording ends. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "../chip/model.h"

#define BUFFER (1u << 20)
#define FILE_HEADER 24
#define RECORD_HEADER 16

int32_t rl_sim_record(struct rl_sim *sim, int32_t fd)
{
    /* Magic of nanosecond pcap, version 2.4, zone, our mark "ring" in place of the accuracy
     * (workers/captures/pcap.py), libpcap's largest snapshot length, link type. */
    const uint32_t header[6] = {0xa1b23c4d, 2u | 4u << 16, 0, 0x676e6972, 262144, 1};
    struct rl_sim_record *record = &sim->record;
    if (record->buffer == NULL)
        record->buffer = malloc(BUFFER);
    if (record->buffer == NULL)
        return -1;
    memcpy(record->buffer, header, sizeof header);
    record->used = sizeof header;
    record->frames = record->written = record->last = 0;
    record->fd = fd;
    return 0;
}

/* The end of the complete records in the first `done` bytes of the buffer; adds their number
 * to `*frames`. */
static uint64_t end_of_records(const struct rl_sim_record *record, uint64_t done, uint64_t *frames)
{
    uint64_t end = record->written == 0 ? FILE_HEADER : 0;
    if (end > done)
        return 0;
    while (end + RECORD_HEADER <= done) {
        uint32_t length;
        memcpy(&length, record->buffer + end + 8, sizeof length);
        if (end + RECORD_HEADER + length > done)
            break;
        end += RECORD_HEADER + length;
        (*frames)++;
    }
    return end;
}

/* A write has failed after `done` bytes of the buffer. */
static void end_recording(struct rl_sim *sim, int error, uint64_t done)
{
    struct rl_sim_record *record = &sim->record;
    struct rl_sim_wire *wire = &sim->card->wire;
    uint64_t kept = 0;
    off_t whole = (off_t)(record->written + end_of_records(record, done, &kept));
    rl_sim_publish(sim); /* before record_error: a reader sees the final counts with it */
    wire->record_error = (uint64_t)error;
    wire->recorded -= record->frames - kept;
    int32_t fd = record->fd;
    record->fd = -1;
    if (lseek(fd, whole, SEEK_SET) < 0 || ftruncate(fd, whole) != 0)
        return; /* not a regular file, for instance a pipe */
}

int32_t rl_sim_record_flush(struct rl_sim *sim)
{
    struct rl_sim_record *record = &sim->record;
    uint64_t done = 0;
    while (record->fd >= 0 && done < record->used) {
        ssize_t bytes = write(record->fd, record->buffer + done, record->used - done);
        if (bytes >= 0)
            done += (uint64_t)bytes;
        else if (errno != EINTR)
            end_recording(sim, errno, done);
    }
    if (record->fd >= 0) {
        record->written += record->used;
        record->used = record->frames = 0;
    }
    return (int32_t)sim->card->wire.record_error;
}

static uint64_t time_stamp(struct rl_sim_record *record)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t stamp = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    record->last = stamp > record->last ? stamp : record->last + 1;
    return record->last;
}

/* Append a frame; `length` is at least RL_SIM_MIN. */
void rl_sim_record_frame(struct rl_sim *sim, const uint8_t *frame, uint32_t length)
{
    struct rl_sim_record *record = &sim->record;
    if (record->used + RECORD_HEADER + length > BUFFER)
        rl_sim_record_flush(sim);
    if (record->fd < 0)
        return;
    uint64_t stamp = time_stamp(record);
    const uint32_t header[4] = {(uint32_t)(stamp / 1000000000u), (uint32_t)(stamp % 1000000000u),
                                length, length};
    memcpy(record->buffer + record->used, header, sizeof header);
    memcpy(record->buffer + record->used + sizeof header, frame, length);
    record->used += RECORD_HEADER + length;
    record->frames++;
    sim->card->wire.recorded++;
}
