"""A port on packet sockets: a copy of the traffic of a network interface (AF_PACKET)."""
