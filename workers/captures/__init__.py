"""Capture files (pcap, pcapng) and packet headers."""
