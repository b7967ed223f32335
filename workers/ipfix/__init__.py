"""Flow records as messages of IPFIX (RFC 7011), for a collector or a file."""
