"""Packet headers and Internet checksums for plugins: in C, for plain Python, and compiled."""
