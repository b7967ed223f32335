"""A port on a TAP interface: the kernel is at the other end of the wire."""
