"""Memory that several processes map: segments, packet memory, rings, the ledger, counters."""
