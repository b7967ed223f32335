/* What the lane does when a pass moved nothing: spin, pause, sleep, or wait for the cards.
 *
 * Guarantees (tests in tests/pipeline/driver/test_lane_interrupts.py):
 *  - an interrupt wakes the lane, and a frame that came before the card was armed is found
 *    (test_an_interrupt_wakes_the_lane,
 *    test_a_frame_that_came_before_the_card_was_armed_is_not_forgotten)
 *  - the lane waits no longer than a sleep for what raises no interrupt
 *    (test_while_a_worker_holds_something_the_lane_looks_after_each_sleep,
 *    test_a_frame_that_waits_for_a_free_buffer_is_taken_when_a_packet_is_sent,
 *    test_what_raises_no_interrupt_is_looked_at_after_each_sleep)
 *  - on cards, a doorbell is written at most once for a burst, and none while idle
 *    (tests/guest/test_vfio_features.py:
 *    test_registers_are_used_once_for_a_burst_and_not_at_all_while_idle) */
#define _GNU_SOURCE
#include "lane.h"

#include "../../shm/clock.h"
#include "../../shm/wait.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#define PAUSES_PER_PASS 32

static int cards_can_wake(const struct rl_lane *lane)
{
    for (uint32_t p = 0; p < lane->port_count; p++)
        if (!lane->ports[p]->arm)
            return 0;
    return lane->receiving && lane->step_count == 0;
}

/* Nothing but a frame that raises its interrupt can give the lane work: no worker holds a packet or
 * a blank, which it could return at any time (a worker cannot wake the lane), and there is a free
 * buffer. Without one, frames that have raised their interrupt wait for a packet to be sent, which
 * raises none. */
static int only_interrupts_matter(const struct rl_lane *lane)
{
    if (lane->memory.free_count == 0)
        return 0;
    for (uint32_t queue = 0; queue < lane->queues; queue++) {
        const struct rl_slot_counters *count = &lane->books->slots[queue];
        if (count->pushed != count->returned + count->lost)
            return 0;
    }
    return 1;
}

static struct timespec time_until(const struct rl_lane *lane, uint64_t until)
{
    uint64_t left = until > lane->pass_at ? until - lane->pass_at : 0;
    uint64_t ns = (left << 22) / lane->ticks_per_64ns_shifted;
    return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

/* The cards are armed first; then one more pass finds what came before that. */
static uint32_t wait_for_cards(struct rl_lane *lane, uint64_t until)
{
    struct pollfd watched[RL_PORTS_MAX + 1];
    uint32_t armed = lane->armed;
    uint32_t n = lane->port_count;
    for (uint32_t p = 0; p < n; p++) {
        struct rl_port *port = lane->ports[p];
        watched[p] = (struct pollfd){port->event, POLLIN, 0};
        if (!(lane->armed >> p & 1))
            port->arm(port);
        lane->armed |= 1u << p;
    }
    if (lane->armed != armed) {
        uint32_t moved = rl_lane_pass(lane);
        if (moved)
            return moved;
    }
    watched[n] = (struct pollfd){lane->calls, POLLIN, 0};
    struct timespec most = {0, (long)lane->deep_sleep_ns};
    if (only_interrupts_matter(lane))
        most = time_until(lane, until);
    lane->books->lane.sleeps++;
    ppoll(watched, n + 1, &most, NULL);
    for (uint32_t p = 0; p < n; p++) {
        uint64_t count;
        if (watched[p].revents && read(watched[p].fd, &count, sizeof count) > 0)
            lane->armed &= ~(1u << p);
    }
    lane->called = watched[n].revents != 0;
    return 0;
}

/* A sleep delays the next packet and costs some microseconds, so it gets longer with the time since
 * the last packet. */
uint32_t rl_lane_wait(struct rl_lane *lane, uint64_t until)
{
    uint64_t idle = lane->pass_at - lane->progress_at;
    if (lane->yielding)
        sched_yield();
    /* Both time and passes count: on a shared core, time also passes while the worker runs. */
    if (!lane->adaptive || idle < lane->pause_after || ++lane->empty_passes < RL_EMPTY_PASSES) {
        rl_pause();
        return 0;
    }
    if (idle < lane->sleep_after) {
        for (int i = 0; i < PAUSES_PER_PASS; i++)
            rl_pause();
        return 0;
    }
    int deep = lane->deep_sleep_ns > lane->sleep_ns && idle >= lane->deep_after;
    if (deep && cards_can_wake(lane))
        return wait_for_cards(lane, until);
    struct timespec nap = {0, (long)(deep ? lane->deep_sleep_ns : lane->sleep_ns)};
    lane->books->lane.sleeps++;
    nanosleep(&nap, NULL);
    return 0;
}
