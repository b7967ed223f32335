"""Capture files, pcap and pcapng, and the headers of the packets in them."""
