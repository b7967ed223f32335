/* The end of a frame that a port received and cannot give to a worker. */
#include "memory.h"

void rl_count_error(struct rl_port *port, uint32_t queue, uint32_t buffer)
{
    struct rl_lane_segment *books = port->memory->books;
    struct rl_queue_counters *count = rl_counters(port->memory, port->index, queue);
    books->intent.buffers[0] = buffer;
    rl_intend(books, RL_INTENT_ASSIGN, 1, rl_ledger_card_rx(port->index), &count->rx_packets,
              &count->drop_rx_error);
    count->rx_packets++;
    count->drop_rx_error++;
    rl_intent_done(books);
}
