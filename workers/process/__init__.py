"""The worker process itself: its start, its loop, its control channel."""
