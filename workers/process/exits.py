"""Exit codes of a worker process, for its supervisor. 1 and 2 are Python's own."""

STOPPED = 0  # told to stop, and everything was returned
PLUGIN = 20  # the plugin failed before the first packet: starting it again will not help
ERRORS = 21  # the plugin failed on every packet for a while: a new life may help
RING_FAULT = 22  # an index that the driver published was out of range
ORPHAN = 23  # the supervisor is gone
