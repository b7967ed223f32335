"""Exit codes of a worker process, for the log. Python itself uses 1 and 2."""

STOPPED = 0  # told to stop: everything was returned, or DRAIN_SECONDS (process.py) passed
PLUGIN = 20  # the plugin failed before the first packet: a restart does not help
ERRORS = 21  # the plugin failed on every packet for a while: a restart may help
RING_FAULT = 22  # the driver published a ring index that is out of range
ORPHAN = 23  # the supervisor is gone
