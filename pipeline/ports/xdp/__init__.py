"""A port on AF_XDP sockets: a network interface that keeps its kernel driver."""
